// Package pebble is the embedded key-value engine: a service's values and its
// journal in one Pebble directory, without cgo.
//
// # Guarantees
//
// What a closure writes, the events it appends and the mark of its follower are
// one batch: all of it is there after a crash, or nothing (G1). No caller is
// answered, with success or with an error, before everything that its closure may
// have read is synced. Views, followers, feeds and tokens see only what is synced:
// Pebble itself shows a batch before its sync, so they read a snapshot that is
// published behind it. The settings this rests on are read back when the directory
// is opened, and a first synced commit is seen to reach the disk (G11). One
// process at a time can open a directory.
//
// # Ordering
//
// One writer runs closures one after the other and sees what the one before has
// written; syncs are shared by all who wait, and waited for behind the writer, in
// order. Positions are given by the writer, so readers never see a hole (G2).
//
// # Failure
//
// A closure that fails, panics or exits leaves nothing and harms nobody. After the
// first error of the disk nothing more is written to the directory, whatever
// Pebble would like to do: those whose commit was under way get
// freehold.ErrUnknown, every later write freehold.ErrLatched until the process
// restarts, and Views go on with what was durable. The process never ends by
// itself. A directory that is damaged or cut off is refused with the file's name,
// except for a write-ahead log that ends early at a place where a power cut could
// have ended it: what is lost then is found by the marks of the consumers.
//
// A database with Options.Disposable does not sync what carries no events: after a
// power cut it is as it was a moment earlier, marks included, and its followers
// apply again what is missing.
//
// # Keys
//
// The first byte of a key is its kind; numbers are 8 bytes, big-endian.
//
//	'j'                          the journal: format, source, epoch (JSON)
//	'i' number                   an incarnation (JSON), from 0
//	'e' position                 an event (see below)
//	's' stream 0x00 version      the event's position
//	'm' follower 0x00 source     a mark: 0x01, position, chain (32), epoch
//	'k' space 0x00 key           what followers keep
//	'd' key                      the service's own values
//
// A stream's version is that of its last entry under 's'. The first entry of a
// stream stays as long as the stream has any, so that one Get tells a new stream.
//
// An event is the byte 0x01; flags (1 internal, 2 last of its transaction, 4 has
// metadata); version and schema version as uvarints; time in microseconds (8
// bytes); digest and chain value (32 bytes each); id, incarnation, stream, type and,
// if flagged, correlation, causation, tenant, actor and trace parent, each behind
// its length as uvarint; the nonce behind its length; and the payload to the end.
package pebble
