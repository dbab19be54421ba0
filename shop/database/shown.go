package database

import (
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// hidden stands where a password was.
const hidden = "xxxxx"

var (
	// following is where the next URL of a list begins. A comma alone says nothing: a
	// password may have one.
	following = regexp.MustCompile(`,\s*[A-Za-z][A-Za-z0-9+.-]*://`)
	// parameters are where those of a URL begin, also behind a password with a question mark.
	parameters = regexp.MustCompile(`\?[A-Za-z0-9_.%-]+=`)
	// hosts are those of a URL that names no user.
	hosts = regexp.MustCompile(`^[^:@/?#\[\]]*(:\d+)?(,[^:@/?#\[\]]*(:\d+)?)*(/[^@?#]*)?$|^\[[^\[\]]*\](:\d+)?(/[^@?#]*)?$`)
	// written is a password that is given by name.
	written = regexp.MustCompile("(?i)([a-z_]*(?:password|passwd|secret)\\s*=\\s*)('[^']*'|[^\\s&`'\"]+)")
)

// Shown is a setting without its passwords: a path, or one or several URLs.
func Shown(value string) string {
	if !strings.Contains(value, "://") {
		return WithoutPasswords(value)
	}
	var b strings.Builder
	for value != "" {
		end := len(value)
		begin := strings.Index(value, "://") + len("://")
		if next := following.FindStringIndex(value[begin:]); next != nil {
			end = begin + next[0]
		}
		b.WriteString(shownURL(value[:end]))
		value = value[end:]
	}
	return b.String()
}

// shownURL hides the password and what may be one. In doubt it hides more.
func shownURL(one string) string {
	scheme, rest, _ := strings.Cut(one, "://")
	query := ""
	if at := parameters.FindStringIndex(rest); at != nil {
		rest, query = rest[:at[0]], rest[at[0]+1:]
	}
	i := strings.LastIndex(rest, "@")
	switch {
	case i < 0 && strings.Contains(query, "@") && !hosts.MatchString(rest):
		return scheme + "://" + hidden // a password that nobody can read the end of
	case i >= 0:
		user, _, password := strings.Cut(rest[:i], ":")
		if password {
			user += ":" + hidden
		} else if slices.Contains([]string{"nats", "tls", "ws", "wss"}, strings.TrimLeft(scheme, ", ")) {
			user = hidden // a token
		}
		rest = user + rest[i:]
	}
	if query == "" {
		return scheme + "://" + rest
	}
	all := strings.Split(query, "&")
	for i, one := range all {
		name, _, named := strings.Cut(one, "=")
		switch {
		case one == "":
		case !named:
			all[i] = hidden // the rest of a password with an ampersand
		case secret(name):
			all[i] = name + "=" + hidden
		}
	}
	return scheme + "://" + rest + "?" + strings.Join(all, "&")
}

// secret reports whether a parameter's value must not be shown.
func secret(name string) bool {
	name, err := url.QueryUnescape(name)
	return err != nil || slices.ContainsFunc([]string{"pass", "pwd", "secret", "token"}, func(s string) bool { return strings.Contains(strings.ToLower(name), s) })
}

// Redacted is a URL without its password and parameters, to be shown.
func Redacted(at string) string {
	engine, rest, ok := strings.Cut(at, ":")
	if !ok {
		return "no URL"
	}
	if !strings.HasPrefix(rest, "//") || engine == SQLite || engine == Pebble {
		return engine + ":" + filepath.Base(WithoutPasswords(rest))
	}
	rest, _, _ = strings.Cut(Shown(at), "?")
	return strings.Replace(rest, ":"+hidden+"@", "@", 1)
}

// WithoutPasswords is text, such as an error, without the passwords that it gives by name.
func WithoutPasswords(text string) string { return written.ReplaceAllString(text, "${1}"+hidden) }
