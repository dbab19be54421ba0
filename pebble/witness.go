package pebble

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/freehold-go/freehold"
)

// witness is a small file beside Pebble's that says how far the journal was durable:
// position, chain value and a checksum, as one line of text. It is written behind
// every sync and never synced itself, so that it may be old, but never ahead. Pebble
// takes a write-ahead log whose end is damaged or missing for one that a power cut
// has ended; the witness knows better.
type witness struct{ file vfs.File }

// witnessName is the file's name.
const witnessName = "freehold.head"

const witnessFormat = "%020d %s %08x\n"

func witnessLine(m freehold.Mark) string {
	text := fmt.Sprintf("%020d %s", m.Position, m.Chain)
	return fmt.Sprintf("%s %08x\n", text, crc32.ChecksumIEEE([]byte(text)))
}

// readWitness returns what the file says, or the zero mark if it says nothing that
// can be relied on.
func readWitness(files vfs.FS, dir string) (m freehold.Mark, err error) {
	f, err := files.Open(filepath.Join(dir, witnessName))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	line, err := io.ReadAll(io.LimitReader(f, 4096))
	if err := errors.Join(err, f.Close()); err != nil {
		return m, err
	}
	var chain string
	var sum uint32
	var said freehold.Mark
	if n, err := fmt.Sscanf(string(line), witnessFormat, &said.Position, &chain, &sum); n != 3 || err != nil {
		return m, nil
	}
	if said.Chain.UnmarshalText([]byte(chain)) != nil || witnessLine(said) != string(line) {
		return m, nil
	}
	return said, nil
}

// open checks the journal against the witness and takes it into use.
func (w *witness) open(db *DB, head freehold.Mark) error {
	said, err := readWitness(db.disk.FS, db.dir)
	if err != nil {
		return db.wrap(err)
	}
	same := said.Position <= head.Position
	if same && said.Position > 0 {
		r := freehold.Recorded{}
		key := numbered(kindEvent, int64(said.Position))
		value, found, err := getFrom(db.kv, key)
		if err == nil && found {
			err = decodeEvent(key, value, &r)
		}
		if err != nil {
			return db.wrap(err)
		}
		same = !found || r.At.Chain == said.Chain // not found: archived
	}
	if !same {
		return fmt.Errorf("pebble: %s ends at position %d and was durable up to %d: its write-ahead log is damaged or files are missing: restore the directory from a backup, or remove %s to go on without those events",
			db.dir, head.Position, said.Position, witnessName)
	}
	if w.file, err = db.disk.Create(filepath.Join(db.dir, witnessName), "freehold"); err != nil {
		return db.wrap(err)
	}
	return w.note(head)
}

// note says that the journal is durable up to a mark.
func (w *witness) note(m freehold.Mark) error {
	_, err := w.file.WriteAt([]byte(witnessLine(m)), 0)
	return err
}

func (w *witness) close() error {
	if w.file == nil {
		return nil
	}
	return w.file.Close()
}
