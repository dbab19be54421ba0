package nats

import "github.com/nats-io/nats.go"

// Raw is the server as subscribers of this process see it.
func Raw(s nats.InProcessConnProvider) nats.InProcessConnProvider { return rawServer{s} }

// Headed is the server as publishers of this process see it.
func Headed(s nats.InProcessConnProvider) nats.InProcessConnProvider { return headedServer{s} }
