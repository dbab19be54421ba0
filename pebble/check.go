package pebble

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	lib "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/record"
	"github.com/freehold-go/freehold/journal"
)

// formatVersion is that of the key layout in the package documentation.
const formatVersion = 1

// meta is what a directory says about itself, under kindJournal.
type meta struct {
	Format int             `json:"format"`
	Source freehold.Source `json:"source"`
	Epoch  freehold.Epoch  `json:"epoch"`
}

// checkDir refuses a path that is no directory, and a directory with files that
// Pebble does not make.
func checkDir(files vfs.FS, dir string) error {
	info, err := files.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // Pebble creates it
	}
	if err != nil {
		return fmt.Errorf("pebble: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("pebble: %s is a file: want a directory", dir)
	}
	names, err := files.List(dir)
	if err != nil {
		return fmt.Errorf("pebble: %w", err)
	}
	manifests, tables := 0, ""
	for _, name := range names {
		switch {
		case strings.HasPrefix(name, "marker.manifest."):
			manifests++
		case strings.HasSuffix(name, ".sst"):
			tables = name
		case name == "LOCK", name == witnessName, name == "lost+found", strings.HasPrefix(name, "MANIFEST-"), strings.HasPrefix(name, "OPTIONS-"), strings.HasPrefix(name, "marker."),
			strings.HasSuffix(name, ".log"), strings.HasSuffix(name, ".dbtmp"), strings.HasPrefix(name, "temporary."):
		default:
			return fmt.Errorf("pebble: %s holds %s, which is no file of a Pebble database: give a new directory", dir, name)
		}
	}
	if manifests == 0 && tables != "" {
		return fmt.Errorf("pebble: %s holds %s but no marker of a manifest: files are missing: restore it from a backup", dir, tables)
	}
	return nil
}

// refusal explains in one line why Pebble did not open the directory.
func (db *DB) refusal(err error) error {
	switch {
	case errors.Is(err, errLocked):
		return fmt.Errorf("pebble: %s is open in another process: stop it first, or use another data directory", db.dir)
	case strings.Contains(err.Error(), "format major version"):
		return fmt.Errorf("pebble: %s was written by a newer program: update this one", db.dir)
	case lib.IsCorruptionError(err), errors.Is(err, fs.ErrNotExist), strings.Contains(err.Error(), "pebble:"), strings.Contains(err.Error(), "MANIFEST"):
		return fmt.Errorf("pebble: %s: %w", db.dir, hinted{err, "the directory is damaged: restore it from a backup"})
	}
	return db.wrap(err)
}

// readMeta reads what the directory says about itself, or makes it up for a new one.
func (db *DB) readMeta() (meta, error) {
	m := meta{Format: formatVersion, Source: db.name, Epoch: freehold.Epoch(journal.NewEpoch())}
	raw, found, err := getFrom(db.kv, []byte{kindJournal})
	if err != nil {
		return m, db.wrap(err)
	}
	if !found {
		it, err := db.kv.NewIter(nil)
		if err != nil {
			return m, db.wrap(err)
		}
		foreign := it.First()
		if err := errors.Join(it.Error(), it.Close()); err != nil {
			return m, db.wrap(err)
		}
		if foreign {
			return m, fmt.Errorf("pebble: %s is a Pebble database of another program: give another directory", db.dir)
		}
		return m, nil
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("pebble: %s is damaged or a database of another program: %w", db.dir, err)
	}
	if m.Source != db.name {
		return m, fmt.Errorf("pebble: %s holds the journal of %q, not of %q: give another directory", db.dir, m.Source, db.name)
	}
	if m.Format > formatVersion {
		return m, fmt.Errorf("pebble: %s has format %d, this program knows %d: update the program", db.dir, m.Format, formatVersion)
	}
	return m, nil
}

// lastEvent returns where the journal ends.
func (db *DB) lastEvent() (freehold.Mark, error) {
	r := freehold.Recorded{At: freehold.Mark{Source: db.name, Epoch: db.epoch}}
	it, err := db.kv.NewIter(&lib.IterOptions{LowerBound: []byte{kindEvent}, UpperBound: []byte{kindEvent + 1}})
	if err != nil {
		return r.At, err
	}
	if it.Last() {
		var value []byte
		if value, err = it.ValueAndErr(); err == nil {
			err = decodeEvent(it.Key(), value, &r)
		}
	}
	return r.At, errors.Join(err, it.Error(), it.Close())
}

// nextIncarnation returns the number behind that of the last incarnation.
func (db *DB) nextIncarnation() (int64, error) {
	it, err := db.kv.NewIter(&lib.IterOptions{LowerBound: []byte{kindIncarnation}, UpperBound: []byte{kindIncarnation + 1}})
	if err != nil {
		return 0, err
	}
	var next int64
	if it.Last() {
		if len(it.Key()) != 9 {
			return 0, errors.Join(record.ErrDamaged, it.Close())
		}
		next = int64(binary.BigEndian.Uint64(it.Key()[1:])) + 1
	}
	return next, errors.Join(it.Error(), it.Close())
}

// auditSettings reads back what durability rests on: the options that Pebble has
// stored beside its files, and whether the synced commit of this opening reached
// the disk.
func (db *DB) auditSettings(synced bool) error {
	desc, err := lib.Peek(db.dir, db.disk.FS)
	if err != nil {
		return db.wrap(err)
	}
	stored, err := readSettings(db.disk.FS, desc.OptionsFilename)
	if err != nil {
		return db.wrap(err)
	}
	if got := stored["disable_wal"]; got != "false" {
		return fmt.Errorf("pebble: %s: disable_wal is %q, want false: commits would not survive a crash", db.dir, got)
	}
	if !synced {
		return fmt.Errorf("pebble: %s: a synced commit did not sync the write-ahead log: use a local disk", db.dir)
	}
	db.audit = []string{"disable_wal=false", fmt.Sprintf("format_major_version=%d", desc.FormatMajorVersion), fmt.Sprintf("layout=%d", formatVersion)}
	switch {
	case db.relaxed:
		db.audit = append(db.audit, "relaxed: a power cut may lose the last transactions")
	case db.lazy:
		db.audit = append(db.audit, "disposable: only commits with events are synced; a power cut takes effects and marks back together")
	default:
		db.audit = append(db.audit, "every commit is synced before it is answered or read")
	}
	return nil
}

// readSettings reads Pebble's stored options: lines of "name=value".
func readSettings(files vfs.FS, path string) (map[string]string, error) {
	f, err := files.Open(path)
	if err != nil {
		return nil, err
	}
	settings := map[string]string{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if name, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), "="); ok {
			settings[name] = value
		}
	}
	return settings, errors.Join(lines.Err(), f.Close())
}
