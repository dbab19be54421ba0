package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// address is what a URL says.
type address struct {
	config clientv3.Config
	prefix string
	shown  string // without the password
	ops    int
	retain *time.Duration // nil if the URL says nothing
}

// defaultOps is how many operations a member takes in a transaction unless it was
// told otherwise (--max-txn-ops).
const defaultOps = 128

// errURL says what a URL looks like.
var errURL = errors.New("want etcd://user:password@host:2379,host:2379/prefix?max-txn-ops=N&retain=168h&tls=1&ca=FILE&cert=FILE&key=FILE, all but the hosts optional")

// parse reads a URL. Its errors do not show the password.
func parse(text string) (a address, err error) {
	rest, ok := strings.CutPrefix(text, "etcd://")
	if !ok {
		return a, errURL
	}
	rest, rawQuery, _ := strings.Cut(rest, "?")
	hosts, prefix, _ := strings.Cut(rest, "/")
	if user, at, ok := cutLast(hosts, "@"); ok {
		name, password, _ := strings.Cut(user, ":")
		var err1, err2 error
		a.config.Username, err1 = url.PathUnescape(name)
		a.config.Password, err2 = url.PathUnescape(password)
		if err1 != nil || err2 != nil {
			return a, fmt.Errorf("user or password is not percent-encoded: %w", errURL)
		}
		hosts = at
	}
	query, err := url.ParseQuery(rawQuery)
	if err != nil || hosts == "" {
		return a, errURL
	}
	a.ops = defaultOps
	scheme := "http://"
	var ca, cert, key string
	for name, values := range query {
		value := values[0]
		switch name {
		case "max-txn-ops":
			if a.ops, err = strconv.Atoi(value); err != nil || a.ops < 16 {
				return a, fmt.Errorf("max-txn-ops=%s: want a number from 16, as the members were started with", value)
			}
		case "retain":
			d, err := time.ParseDuration(value)
			if err != nil || d < 0 {
				return a, fmt.Errorf("retain=%s: want for how long events are kept at least, such as 168h, or 0 to keep all", value)
			}
			a.retain = &d
		case "tls":
			scheme = "https://"
		case "ca":
			ca, scheme = value, "https://"
		case "cert":
			cert, scheme = value, "https://"
		case "key":
			key, scheme = value, "https://"
		default:
			return a, fmt.Errorf("parameter %s: %w", name, errURL)
		}
	}
	for host := range strings.SplitSeq(hosts, ",") {
		if !strings.Contains(host, ":") {
			host += ":2379"
		}
		a.config.Endpoints = append(a.config.Endpoints, scheme+host)
	}
	if scheme == "https://" {
		if a.config.TLS, err = tlsConfig(ca, cert, key); err != nil {
			return a, err
		}
	}
	if a.prefix = strings.Trim(prefix, "/"); a.prefix == "" {
		a.prefix = "freehold"
	}
	a.shown = "etcd://" + hosts + "/" + a.prefix
	a.prefix += "/"
	a.config.DialTimeout = 5 * time.Second
	a.config.DialKeepAliveTime, a.config.DialKeepAliveTimeout = 5*time.Second, 3*time.Second
	a.config.Logger = zap.NewNop() // errors come back from the calls
	return a, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func tlsConfig(ca, cert, key string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca: %s holds no certificate", ca)
		}
	}
	if cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("cert and key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
