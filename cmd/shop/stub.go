package main

type loadCmd struct{}

func (loadCmd) Run() error { return nil }
