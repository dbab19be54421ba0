package redis

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// address is what a URL says. Its text form shows no password.
type address struct {
	host     string
	prefix   string // of all keys
	user     string
	password string
	database int
	tls      bool
}

const wantURL = "want redis://user:password@host:6379/prefix, or rediss:// for TLS"

// parseURL reads redis://user:password@host:port/prefix?db=n. Its errors do not
// repeat what it was given.
func parseURL(text string) (a address, err error) {
	u, err := url.Parse(text)
	if err != nil {
		return a, errors.New("redis: a URL that cannot be read: " + wantURL)
	}
	if u.Scheme != "redis" && u.Scheme != "rediss" || u.Hostname() == "" || u.Opaque != "" {
		return a, fmt.Errorf("redis: scheme %.20q, host %.60q: %s", u.Scheme, u.Hostname(), wantURL)
	}
	port := u.Port()
	if port == "" {
		port = "6379"
	}
	a = address{host: net.JoinHostPort(u.Hostname(), port), prefix: strings.Trim(u.Path, "/"), tls: u.Scheme == "rediss"}
	if u.User != nil {
		a.user = u.User.Username()
		a.password, _ = u.User.Password()
	}
	for key, values := range u.Query() {
		if key != "db" {
			return a, fmt.Errorf("redis: %s: parameter %.20q: only db is known", a, key)
		}
		if a.database, err = strconv.Atoi(values[0]); err != nil || a.database < 0 {
			return a, fmt.Errorf("redis: %s: db %.20q: want a number from 0", a, values[0])
		}
	}
	if a.prefix != "" {
		if err := checkName(strings.ReplaceAll(a.prefix, "/", ".")); err != nil {
			return a, fmt.Errorf("redis: prefix: %w", err)
		}
	}
	return a, nil
}

func (a address) String() string {
	text := "redis://" + a.host
	if a.tls {
		text = "rediss://" + a.host
	}
	if a.prefix != "" {
		text += "/" + a.prefix
	}
	return text
}

// options are the library's. Nothing is sent twice: whether that is safe is decided
// here.
func (a address) options() rueidis.ClientOption {
	o := rueidis.ClientOption{
		InitAddress: []string{a.host}, Username: a.user, Password: a.password, SelectDB: a.database, ClientName: "freehold",
		DisableCache: true, DisableRetry: true, ConnWriteTimeout: timeout,
	}
	o.Dialer.Timeout = timeout
	if a.tls {
		host, _, _ := net.SplitHostPort(a.host)
		o.TLSConfig = &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	}
	return o
}

// key returns the name of a key: its last part belongs to name, whose keys are all
// in one slot of a cluster.
func (a address) key(name, part string) string {
	prefix := a.prefix
	if prefix != "" {
		prefix += ":"
	}
	return prefix + "{" + name + "}:" + part
}

// checkName wants what can stand between the braces of a key.
func checkName(name string) error {
	if name == "" || len(name) > 64 {
		return fmt.Errorf("redis: name %.40q: want 1 to 64 bytes", name)
	}
	for i := range len(name) {
		b := name[i]
		letter := b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
		digit := b >= '0' && b <= '9'
		if !letter && !digit && b != '_' && b != '.' && b != '-' {
			return fmt.Errorf("redis: name %.40q: byte %q: want letters, digits, dots, dashes and underscores", name, b)
		}
	}
	return nil
}
