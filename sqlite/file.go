package sqlite

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// checkFile refuses what is no SQLite file, or has lost pages. SQLite itself would
// begin an empty database where the file is gone or empty, and find a missing page
// only when it reads it.
func checkFile(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().IsRegular() && info.Size() == 0 {
		if log, err := os.Stat(path + "-wal"); err == nil && log.Size() > 0 {
			return fmt.Errorf("sqlite: %s is gone or empty, its log %s-wal is not: restore it from a backup, or delete the log to begin anew", path, path)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	if info.IsDir() {
		return fmt.Errorf("sqlite: %s is a directory: want the path of a file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	defer f.Close()
	var header [100]byte // https://www.sqlite.org/fileformat2.html#the_database_header
	if _, err := io.ReadFull(f, header[:]); err != nil || string(header[:16]) != "SQLite format 3\x00" {
		return fmt.Errorf("sqlite: %s is not a SQLite database: give another path, or restore it from a backup", path)
	}
	pageSize := int64(binary.BigEndian.Uint16(header[16:]))
	if pageSize == 1 {
		pageSize = 65536
	}
	pages := int64(binary.BigEndian.Uint32(header[28:]))
	have := info.Size() / pageSize
	if have >= pages {
		return nil
	}
	// A process that is killed while it copies the log into the file leaves a first
	// page that tells of pages which only the log has.
	logged, size, err := loggedPages(path+"-wal", pageSize)
	if err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	if size > 0 {
		pages = size
	}
	for page := have + 1; page <= pages; page++ {
		if !logged[page] {
			return fmt.Errorf("sqlite: %s is cut off: %d bytes, its header says %d: restore it from a backup", path, info.Size(), pages*pageSize)
		}
	}
	return nil
}

// loggedPages are the pages that the write-ahead log's commits hold, and how many
// the database has by its last commit; none where there is no log.
// The format is that of https://www.sqlite.org/fileformat2.html#the_write_ahead_log.
func loggedPages(path string, pageSize int64) (logged map[int64]bool, size int64, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	var header [32]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, 0, nil // never begun
	}
	logged = map[int64]bool{}
	var open []int64 // of a commit that has not ended
	for {
		var frame [24]byte
		if _, err := io.ReadFull(r, frame[:]); err != nil || [8]byte(frame[8:]) != [8]byte(header[16:]) {
			return logged, size, nil // the end, or a frame from before the log last began
		}
		if _, err := r.Discard(int(pageSize)); err != nil {
			return logged, size, nil // a frame that was being written
		}
		open = append(open, int64(binary.BigEndian.Uint32(frame[:])))
		if commit := int64(binary.BigEndian.Uint32(frame[4:])); commit > 0 {
			for _, page := range open {
				logged[page] = true
			}
			open, size = open[:0], commit
		}
	}
}
