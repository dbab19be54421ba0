package main

type replayCmd struct{}
type loadCmd struct{}
type verifyCmd struct{}

func (replayCmd) Run() error { return nil }
func (loadCmd) Run() error   { return nil }
func (verifyCmd) Run() error { return nil }
