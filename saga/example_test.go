package saga_test

import (
	"context"
	"fmt"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/saga"
)

// A trip is booked when hotel and flight are; a flight that is sold out cancels
// the hotel.
type (
	TripAsked     struct{ Trip string }
	HotelBooked   struct{ Trip, Room string }
	FlightSoldOut struct{ Trip string }
	HotelCancel   struct{ Room string }
	TripFailed    struct{ Why string }
)

func (TripAsked) EventType() freehold.Type     { return freehold.T("trip.asked", 1) }
func (HotelBooked) EventType() freehold.Type   { return freehold.T("hotel.booked", 1) }
func (FlightSoldOut) EventType() freehold.Type { return freehold.T("flight.sold-out", 1) }
func (HotelCancel) EventType() freehold.Type   { return freehold.T("hotel.cancel-asked", 1) }
func (TripFailed) EventType() freehold.Type    { return freehold.T("trip.failed", 1) }

// Trip is what the process remembers between its steps.
type Trip struct{ Room string }

func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	types, err := freehold.NewCatalog(freehold.JSON[TripAsked](), freehold.JSON[HotelBooked](), freehold.JSON[FlightSoldOut](),
		freehold.JSON[HotelCancel](), freehold.JSON[TripFailed]())
	if err != nil {
		panic(err)
	}
	db, err := memory.Open(ctx, "trips", types, nil)
	if err != nil {
		panic(err)
	}
	defer db.Close()

	fail := func(ctx context.Context, tx kv.Tx, s *saga.Step[Trip], why string) error {
		s.End()
		if err := s.Compensate(ctx, tx); err != nil {
			return err
		}
		_, err := tx.Append(ctx, freehold.Stream("trip", s.ID), freehold.Exists, TripFailed{why})
		return err
	}
	trips, err := saga.New("trips", 1, db, []follow.Source{db.Journal()}, nil,
		saga.Start(func(e TripAsked) string { return e.Trip }, func(_ context.Context, _ kv.Tx, s *saga.Step[Trip], _ TripAsked) error {
			s.Deadline("answers", time.Hour)
			return nil
		}),
		saga.On(func(e HotelBooked) string { return e.Trip }, func(_ context.Context, _ kv.Tx, s *saga.Step[Trip], e HotelBooked) error {
			s.State.Room = e.Room
			s.OnUndo("hotel", freehold.Write{Stream: freehold.Stream("hotel", s.ID), Expect: freehold.Exists, Events: []freehold.Event{HotelCancel{e.Room}}})
			return nil
		}),
		saga.On(func(e FlightSoldOut) string { return e.Trip }, func(ctx context.Context, tx kv.Tx, s *saga.Step[Trip], _ FlightSoldOut) error {
			return fail(ctx, tx, s, "no flight")
		}),
		saga.OnTimeout(func(ctx context.Context, tx kv.Tx, s *saga.Step[Trip], t saga.Timeout) error {
			return fail(ctx, tx, s, "no answer in time")
		}))
	if err != nil {
		panic(err)
	}
	done := make(chan error, 1)
	go func() { done <- trips.Run(ctx) }()

	tok, err := db.Append(ctx,
		freehold.Write{Stream: "trip-1", Expect: freehold.NoStream, Events: []freehold.Event{TripAsked{"1"}}},
		freehold.Write{Stream: "hotel-1", Expect: freehold.NoStream, Events: []freehold.Event{HotelBooked{"1", "room 12"}}},
		freehold.Write{Stream: "flight-1", Expect: freehold.NoStream, Events: []freehold.Event{FlightSoldOut{"1"}}})
	if err != nil {
		panic(err)
	}
	if err := trips.WaitFor(ctx, tok); err != nil {
		panic(err)
	}
	for _, s := range []freehold.StreamID{"hotel-1", "trip-1"} {
		for r, err := range db.Events(ctx, s, 1) {
			fmt.Println(r.Type.Name, string(r.Raw), err)
		}
	}
	cancel()
	fmt.Println("ended:", <-done)

	// Output:
	// hotel.cancel-asked {"Room":"room 12"} <nil>
	// trip.failed {"Why":"no flight"} <nil>
	// ended: <nil>
}
