package etcd_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/etcd"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
)

// oldHead is the head as programs from before forks and cuts read and write it.
type oldHead struct {
	Position    freehold.Position `json:"position"`
	Chain       freehold.Hash     `json:"chain"`
	Incarnation string            `json:"incarnation"`
}

// formats is what is stored of a journal's format.
type formats struct {
	client *clientv3.Client
	prefix string
}

func (f formats) get(t *testing.T, key string) (value string, revision int64) {
	t.Helper()
	resp, err := f.client.Get(t.Context(), f.prefix+key)
	if err != nil || len(resp.Kvs) != 1 {
		t.Fatalf("key %s: %v, %v", key, resp, err)
	}
	return string(resp.Kvs[0].Value), resp.Kvs[0].ModRevision
}

func (f formats) put(t *testing.T, key, value string) {
	t.Helper()
	if _, err := f.client.Put(t.Context(), f.prefix+key, value); err != nil {
		t.Fatal(err)
	}
}

// ofJournal is the format that an opening is told.
func (f formats) ofJournal(t *testing.T) int {
	t.Helper()
	var m struct{ Format int }
	raw, _ := f.get(t, "j")
	if err := json.Unmarshal([]byte(raw), &m); err != nil {
		t.Fatal(err)
	}
	return m.Format
}

// rewrite does what a program from before forks and cuts does to the head with each of
// its commits, as far as it can.
func (f formats) rewrite(t *testing.T) error {
	t.Helper()
	var h oldHead
	raw, _ := f.get(t, "h")
	if err := json.Unmarshal([]byte(raw), &h); err != nil {
		return err
	}
	again, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	f.put(t, "h", string(again))
	return nil
}

// TestAnOldProgramCannotUndoAForkOrACut lets a program from before forks and cuts write
// beside a new one for as long as neither has happened, and refuses it from then on,
// whether it is started then or runs already.
func TestAnOldProgramCannotUndoAForkOrACut(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(t *testing.T, db *etcd.DB){
		"fork": func(t *testing.T, db *etcd.DB) {
			first, _, _ := db.Journal().Bounds(t.Context())
			if _, err := db.Journal().Fork(t.Context(), nil, first, "restored"); err != nil {
				t.Fatal(err)
			}
		},
		"cut": func(t *testing.T, db *etcd.DB) {
			if first, err := db.CutNow(t.Context(), time.Nanosecond); err != nil || first.Position == 0 {
				t.Fatal(first, err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			url := testdb.Etcd(t)
			db := open(t, url)
			client, prefix := raw(t, url)
			stored := formats{client, prefix}
			said(t, db, 0, 4)
			if err := stored.rewrite(t); err != nil || stored.ofJournal(t) != 1 {
				t.Fatalf("before a %s an old program is refused: format %d, %v", what, stored.ofJournal(t), err)
			}
			said(t, db, 4, 8) // on the head that the old one wrote
			_ = open(t, url)
			if err := stored.rewrite(t); err != nil || stored.ofJournal(t) != 1 {
				t.Fatalf("an opening refuses an old program: format %d, %v", stored.ofJournal(t), err)
			}
			change(t, db)
			first, head, err := db.Journal().Fresh(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := func(when string) {
				t.Helper()
				if f := stored.ofJournal(t); f != 2 {
					t.Errorf("%s: an old program that is started finds format %d, want 2", when, f)
				}
				if err := stored.rewrite(t); err == nil {
					t.Errorf("%s: an old program that runs can still write", when)
				}
				other := open(t, url)
				otherFirst, otherHead, err := other.Journal().Fresh(t.Context())
				if err != nil || otherFirst.Position != first.Position || otherHead.Epoch != head.Epoch {
					t.Errorf("%s: from %v to %v, %v, want from %v in epoch %s", when, otherFirst, otherHead, err, first, head.Epoch)
				}
			}
			_, ofHead := stored.get(t, "h")
			if _, ofJournal := stored.get(t, "j"); what == "fork" && ofHead != ofJournal {
				t.Errorf("the format was raised at revision %d, the head was written at %d: between them an old program may write", ofJournal, ofHead)
			}
			want("behind the " + what)
			said(t, db, 8, 10)
			want("behind more commits")
		})
	}
}

// TestAHeadOfThePlainFormatThatKnowsItsForkIsRaised opens a journal whose head tells more
// than the plain format does, without saying so.
func TestAHeadOfThePlainFormatThatKnowsItsForkIsRaised(t *testing.T) {
	t.Parallel()
	url := testdb.Etcd(t)
	db := open(t, url)
	said(t, db, 0, 4)
	first, err := db.CutNow(t.Context(), time.Nanosecond)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	client, prefix := raw(t, url)
	stored := formats{client, prefix}
	h, _ := stored.get(t, "h")
	j, _ := stored.get(t, "j")
	stored.put(t, "h", strings.TrimPrefix(h, "2"))
	stored.put(t, "j", strings.Replace(j, `"format":2`, `"format":1`, 1))
	if again, _, err := open(t, url).Journal().Fresh(t.Context()); err != nil || again != first || stored.ofJournal(t) != 2 || stored.rewrite(t) == nil {
		t.Errorf("begins at %v, %v, want %v; format %d, want 2", again, err, first, stored.ofJournal(t))
	}
}

// TestANewerFormatIsRefused meets a journal that a newer program has written: at the
// opening, at a check, and in a program that runs already.
func TestANewerFormatIsRefused(t *testing.T) {
	t.Parallel()
	const precise = "the journal has format 3, this program knows 2: update the program"
	url := testdb.Etcd(t)
	db := open(t, url)
	said(t, db, 0, 2)
	client, prefix := raw(t, url)
	stored := formats{client, prefix}
	j, _ := stored.get(t, "j")
	h, _ := stored.get(t, "h")
	_, err := client.Txn(t.Context()).Then( // at once, as a newer program does
		clientv3.OpPut(prefix+"j", strings.Replace(j, `"format":1`, `"format":3`, 1)),
		clientv3.OpPut(prefix+"h", "3"+h),
	).Commit()
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), precise) {
			t.Errorf("%s: %v, want %q", what, err, precise)
		}
	}
	_, err = etcd.Open(t.Context(), url, "test", journaltest.Types(t), &etcd.Options{Log: quiet})
	refused("opening", err)
	_, err = etcd.Check(t.Context(), url, "test")
	refused("check", err)
	_, err = db.Append(context.WithoutCancel(t.Context()), freehold.Write{Stream: "a-1", Expect: freehold.Any, Events: []freehold.Event{journaltest.Happened{}}})
	refused("a commit of a program that runs", err)
	if now, _ := stored.get(t, "h"); now != "3"+h {
		t.Errorf("the head became %q", now)
	}
}
