package pebble

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	lib "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is the file system under Pebble. Pebble answers an error of the write-ahead
// log or the manifest by panicking with its locks held or by ending the process,
// and tries a failed flush again without a pause. So it is never shown one: the
// first error latches the database, and from then on nothing is written. That
// holds from the first moment of Open on.
//
// To Pebble the log then seems to go on (its writes are dropped, and no caller is
// told of a success: see awaitSyncs), and whoever writes another file waits for
// ever, so that what it was about to write stays readable in memory.
type disk struct {
	vfs.FS
	fail    func(error) // latches; called with every error
	latched atomic.Bool
	syncs   atomic.Int64 // of files, the write-ahead log's above all

	mu   sync.Mutex
	lock io.Closer // of the directory
}

// errLocked is returned by Lock where another process holds the directory.
var errLocked = errors.New("pebble: directory is open in another process")

// isLog reports whether a file is written by goroutines that must never be held:
// the log's and the witness's.
func isLog(name string) bool {
	return strings.HasSuffix(name, ".log") || strings.HasSuffix(name, witnessName)
}

// failed reports whether there is an error, and latches for it.
func (d *disk) failed(err error) bool {
	if err == nil {
		return false
	}
	d.latched.Store(true)
	d.fail(err)
	return true
}

// wait is where goroutines of a latched database end.
func (d *disk) wait() { select {} }

func (d *disk) created(name string, f vfs.File, err error) (vfs.File, error) {
	if err == nil {
		return &diskFile{File: f, disk: d, log: isLog(name)}, nil
	}
	d.failed(err)
	if !isLog(name) {
		d.wait()
	}
	return &diskFile{disk: d, log: true}, nil
}

// before reports whether the disk is latched; a caller who writes something else
// than the log does not come back then.
func (d *disk) before(log bool) (latched bool) {
	if !d.latched.Load() {
		return false
	}
	if !log {
		d.wait()
	}
	return true
}

func (d *disk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if d.before(isLog(name)) {
		return &diskFile{disk: d, log: true}, nil
	}
	f, err := d.FS.Create(name, category)
	return d.created(name, f, err)
}

func (d *disk) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if d.before(isLog(newname)) {
		return &diskFile{disk: d, log: true}, nil
	}
	f, err := d.FS.ReuseForWrite(oldname, newname, category)
	return d.created(newname, f, err)
}

func (d *disk) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	d.before(false)
	f, err := d.FS.OpenReadWrite(name, category, opts...)
	return d.created(name, f, err)
}

// OpenDir wraps the directory for its Sync. A directory's sync is never waited
// in: it is called by the writer when the log is changed.
func (d *disk) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &diskFile{File: f, disk: d, log: true}, nil
}

func (d *disk) Rename(oldname, newname string) error {
	d.before(false)
	if d.failed(d.FS.Rename(oldname, newname)) {
		d.wait()
	}
	return nil
}

func (d *disk) Link(oldname, newname string) error {
	d.before(false)
	return d.FS.Link(oldname, newname)
}

func (d *disk) Remove(name string) error {
	if d.before(true) {
		return nil
	}
	return d.FS.Remove(name)
}

func (d *disk) RemoveAll(name string) error {
	if d.before(true) {
		return nil
	}
	return d.FS.RemoveAll(name)
}

func (d *disk) Lock(name string) (io.Closer, error) {
	c, err := d.FS.Lock(name)
	if err != nil {
		var path *os.PathError
		if !errors.As(err, &path) && (errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) || strings.Contains(err.Error(), "lock held")) {
			return nil, errLocked
		}
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lock = &onceCloser{Closer: c}
	return d.lock, nil
}

// unlock lets go of a directory that Pebble cannot close any more.
func (d *disk) unlock() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lock == nil {
		return nil
	}
	return d.lock.Close()
}

type onceCloser struct {
	io.Closer
	once sync.Once
	err  error
}

func (c *onceCloser) Close() error {
	c.once.Do(func() { c.err = c.Closer.Close() })
	return c.err
}

// diskFile is a file that Pebble writes. log means that a latched disk drops what
// is written instead of holding the writer; without a File it always does.
type diskFile struct {
	vfs.File
	disk *disk
	log  bool
}

// do runs a write unless the disk is latched, and latches for its error.
func (f *diskFile) do(op func() error) {
	if f.disk.before(f.log) || f.File == nil {
		return
	}
	if f.disk.failed(op()) && !f.log {
		f.disk.wait()
	}
}

func (f *diskFile) Write(p []byte) (int, error) {
	f.do(func() error { _, err := f.File.Write(p); return err })
	return len(p), nil
}

func (f *diskFile) WriteAt(p []byte, offset int64) (int, error) {
	f.do(func() error { _, err := f.File.WriteAt(p, offset); return err })
	return len(p), nil
}

func (f *diskFile) Sync() error {
	f.do(func() error { return f.File.Sync() })
	f.disk.syncs.Add(1)
	return nil
}

func (f *diskFile) SyncData() error {
	f.do(func() error { return f.File.SyncData() })
	f.disk.syncs.Add(1)
	return nil
}

func (f *diskFile) SyncTo(length int64) (full bool, err error) {
	f.do(func() (err error) { full, err = f.File.SyncTo(length); return err })
	return full, nil
}

// Preallocate is only a hint: where it fails, the write tells.
func (f *diskFile) Preallocate(offset, length int64) error {
	if !f.disk.latched.Load() && f.File != nil {
		_ = f.File.Preallocate(offset, length)
	}
	return nil
}

func (f *diskFile) Close() error {
	if f.File == nil {
		return nil
	}
	f.disk.failed(f.File.Close())
	return nil
}

func (f *diskFile) Read(p []byte) (int, error) {
	if f.File == nil {
		return 0, io.EOF
	}
	return f.File.Read(p)
}

func (f *diskFile) ReadAt(p []byte, offset int64) (int, error) {
	if f.File == nil {
		return 0, io.EOF
	}
	return f.File.ReadAt(p, offset)
}

func (f *diskFile) Stat() (vfs.FileInfo, error) {
	if f.File == nil {
		return noFile{}, nil
	}
	return f.File.Stat()
}

func (f *diskFile) Prefetch(offset, length int64) error {
	if f.File == nil {
		return nil
	}
	return f.File.Prefetch(offset, length)
}

func (f *diskFile) Fd() uintptr {
	if f.File == nil {
		return vfs.InvalidFd
	}
	return f.File.Fd()
}

// noFile describes a log that exists only in Pebble's mind.
type noFile struct{}

func (noFile) Name() string           { return "" }
func (noFile) Size() int64            { return 0 }
func (noFile) Mode() os.FileMode      { return 0 }
func (noFile) ModTime() time.Time     { return time.Time{} }
func (noFile) IsDir() bool            { return false }
func (noFile) Sys() any               { return nil }
func (noFile) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }

// hint says what to do about an error of the directory.
func hint(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return hinted{err, "the disk is full: free some space and start again"}
	case errors.Is(err, syscall.EIO):
		return hinted{err, "the disk does not read or write: look at the system's log"}
	case lib.IsCorruptionError(err):
		return hinted{err, "the directory is damaged: restore it from a backup"}
	}
	return err
}

// hinted is an error in one line with what to do about it.
type hinted struct {
	err  error
	hint string
}

func (h hinted) Error() string {
	return strings.Join(strings.Fields(h.err.Error()), " ") + ": " + h.hint
}
func (h hinted) Unwrap() error { return h.err }
