package journaltest

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/freehold-go/freehold"
)

// count is a closure that keeps a counter in the state equal to the number of
// events in its stream.
func (s suite[T]) count(ctx context.Context, tx T, stream freehold.StreamID) error {
	if err := tx.Lock(ctx, string(stream)); err != nil {
		return err
	}
	n, err := s.number(ctx, tx, string(stream))
	if err != nil {
		return err
	}
	if err := s.Put(ctx, tx, string(stream), strconv.Itoa(n+1)); err != nil {
		return err
	}
	_, err = tx.Append(ctx, stream, freehold.Any, happened(n+1))
	return err
}

// number reads a counter.
func (s suite[T]) number(ctx context.Context, tx T, key string) (int, error) {
	v, err := s.Get(ctx, tx, key)
	if err != nil || v == "" {
		return 0, err
	}
	return strconv.Atoi(v)
}

func (s suite[T]) snapshot(t *testing.T, db DB[T]) {
	const writers, each = 4, 40
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for range each {
				_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
					for k := range 2 {
						if err := s.count(ctx, tx, freehold.Stream("a", strconv.Itoa((w+k)%writers))); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writing.Wait(); close(done) }()
	var reading sync.WaitGroup
	for range 3 {
		reading.Go(func() {
			seen := freehold.Mark{}
			for more := true; more; {
				select {
				case <-done:
					more = false
				default:
				}
				err := db.View(t.Context(), func(ctx context.Context, tx T) error {
					if at := tx.Mark(); at.Position < seen.Position {
						t.Errorf("a later View is at %d, an earlier one was at %d", at.Position, seen.Position)
					} else {
						seen = at
					}
					return s.look(ctx, t, tx, writers, seen)
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
			if seen.Position == 0 {
				t.Error("the run did nothing")
			}
		})
	}
	writing.Wait()
	reading.Wait()
	// A snapshot does not move while others write, and does not hold them up.
	err := db.View(t.Context(), func(ctx context.Context, tx T) error {
		at := tx.Mark()
		if err := s.look(ctx, t, tx, writers, at); err != nil {
			return err
		}
		if _, err := db.Update(t.Context(), func(ctx context.Context, tx T) error { return s.count(ctx, tx, "a-0") }); err != nil {
			return fmt.Errorf("update beside a View: %w", err)
		}
		if tx.Mark() != at {
			t.Errorf("the snapshot's mark moved from %v to %v", at, tx.Mark())
		}
		if n, err := s.number(ctx, tx, "a-0"); n != 2*each || err != nil {
			t.Errorf("the snapshot moved to %d, %v, want %d", n, err, 2*each)
		}
		return s.look(ctx, t, tx, writers, at)
	})
	if err != nil {
		t.Error(err)
	}
}

// look compares what a View sees of state, events and the journal up to its mark.
func (s suite[T]) look(ctx context.Context, t *testing.T, tx T, streams int, at freehold.Mark) error {
	total := 0
	for i := range streams {
		stream := freehold.Stream("a", strconv.Itoa(i))
		n, err := s.number(ctx, tx, string(stream))
		if err != nil {
			return err
		}
		got := numbers(ctx, t, tx, stream, 0)
		if len(got) != n || n > 0 && got[n-1] != n {
			t.Errorf("%d events of %s beside a counter of %d", len(got), stream, n)
		}
		total += n
	}
	if freehold.Position(total) < at.Position {
		t.Errorf("a View at %d sees %d events", at.Position, total)
	}
	return nil
}

func (s suite[T]) readYourWrites(t *testing.T, db DB[T]) {
	var all sync.WaitGroup
	for w := range 16 {
		all.Go(func() {
			key, stream := strconv.Itoa(w), freehold.Stream("a", strconv.Itoa(w))
			for i := range 15 {
				tok, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
					if err := s.Put(ctx, tx, key, strconv.Itoa(i)); err != nil {
						return err
					}
					_, err := tx.Append(ctx, stream, freehold.At(freehold.Version(i)), happened(i))
					return err
				})
				if err != nil {
					t.Error(err)
					return
				}
				err = db.View(t.Context(), func(ctx context.Context, tx T) error {
					if got, err := s.Get(ctx, tx, key); got != strconv.Itoa(i) || err != nil {
						t.Errorf("a View reads %q, %v behind the acknowledged %d", got, err, i)
					}
					if got := len(numbers(ctx, t, tx, stream, 0)); got != i+1 {
						t.Errorf("a View sees %d events behind %d acknowledged", got, i+1)
					}
					if m := tok.Of(db.Journal().Name()); len(m) != 1 || tx.Mark().Position < m[0].Position {
						t.Errorf("a View is at %v behind the token %q", tx.Mark(), tok)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				if _, head, err := db.Journal().Bounds(t.Context()); err != nil || head.Position < tok.Of(db.Journal().Name())[0].Position {
					t.Errorf("the head is %v, %v behind the token %q", head, err, tok)
				}
			}
		})
	}
	all.Wait()
}

func (s suite[T]) lock(t *testing.T, db DB[T]) {
	const callers, each = 16, 15
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range each {
				if _, err := db.Update(t.Context(), func(ctx context.Context, tx T) error { return s.count(ctx, tx, "a-1") }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if got := s.get(t, db, "a-1"); got != strconv.Itoa(callers*each) {
		t.Errorf("the counter is %s, want %d", got, callers*each)
	}
}

// behindReads makes transactions read what others wrote, and checks that each
// stands behind the one it had read of.
func (s suite[T]) behindReads(t *testing.T, db DB[T]) {
	const callers, each, keys = 8, 25, 3
	var all sync.WaitGroup
	for c := range callers {
		all.Go(func() {
			for i := range each {
				id := strconv.Itoa(c*each + i)
				_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
					read, err := s.Get(ctx, tx, strconv.Itoa(i%keys))
					if err != nil {
						return err
					}
					if err := s.Put(ctx, tx, strconv.Itoa((i+c)%keys), id); err != nil {
						return err
					}
					_, err = tx.Append(ctx, freehold.Stream("a", id), freehold.NoStream, Happened{Text: read})
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	at := map[string]freehold.Position{"": 0}
	linked := 0
	for _, r := range readAll(t, db, 64) {
		e, err := r.Decode()
		if err != nil {
			t.Fatal(err)
		}
		read := e.(Happened).Text
		if _, there := at[read]; !there {
			t.Errorf("%s at %d had read of %s, which stands behind it", r.Stream, r.At.Position, read)
		}
		if read != "" {
			linked++
		}
		at[r.Stream.ID()] = r.At.Position
	}
	if linked < callers*each/2 {
		t.Errorf("only %d transactions had read of another: the run did not do enough", linked)
	}
}
