package intent_test

import (
	"context"
	"fmt"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/intent"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
)

// MailRequested is the intent, MailSent its outcome.
type (
	MailRequested struct{ To string }
	MailSent      struct{ Receipt string }
)

func (MailRequested) EventType() freehold.Type { return freehold.T("mail.requested", 1) }
func (MailSent) EventType() freehold.Type      { return freehold.T("mail.sent", 1) }

func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	types, err := freehold.NewCatalog(freehold.Internal[MailRequested](), freehold.JSON[MailSent]())
	if err != nil {
		panic(err)
	}
	db, err := memory.Open(ctx, "post", types, nil)
	if err != nil {
		panic(err)
	}
	defer db.Close()

	// send is the outside world: it must recognise a key that it has seen.
	send := func(_ context.Context, key string, e MailRequested, attempt int) (string, error) {
		fmt.Println("sending to", e.To)
		return "receipt for " + e.To, nil
	}
	sent := func(ctx context.Context, tx kv.Tx, done []intent.Done[MailRequested, string]) error {
		for _, d := range done {
			ctx := freehold.WithMeta(ctx, d.Recorded.Caused())
			if _, err := tx.Append(ctx, d.Recorded.Stream, freehold.Exists, MailSent{d.Outcome}); err != nil {
				return err
			}
		}
		return nil
	}
	mails, err := intent.New("mails", db, db.Journal(), nil, send, sent)
	if err != nil {
		panic(err)
	}
	done := make(chan error, 1)
	go func() { done <- mails.Run(ctx) }()

	// A service asks for a mail in the transaction of what the mail is about.
	tok, err := db.Update(ctx, func(ctx context.Context, tx kv.Tx) error {
		_, err := tx.Append(ctx, "mail-1", freehold.NoStream, MailRequested{"ann@example.org"})
		return err
	})
	if err != nil {
		panic(err)
	}
	if err := mails.WaitFor(ctx, tok); err != nil {
		panic(err)
	}
	for r, err := range db.Events(ctx, "mail-1", 0) {
		fmt.Println(r.Version, r.Type.Name, string(r.Raw), err)
	}
	cancel()
	fmt.Println("ended:", <-done)

	// Output:
	// sending to ann@example.org
	// 1 mail.requested {"To":"ann@example.org"} <nil>
	// 2 mail.sent {"Receipt":"receipt for ann@example.org"} <nil>
	// ended: <nil>
}
