package web

// Consumers lists the services that are configured, each by its base URLs, for
// host.Options.Consumers.
func Consumers(urls ...string) (all []string) {
	for _, u := range urls {
		if u != "" {
			all = append(all, u)
		}
	}
	return all
}
