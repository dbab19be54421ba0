package database_test

import (
	"strings"
	"testing"

	"github.com/freehold-go/freehold/shop/database"
)

func TestWhatIsShownHasNoPasswords(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"":                             "",
		"pull:":                        "pull:",
		"/srv/a@b/data":                "/srv/a@b/data",
		"sqlite:/srv/a@b/order.db":     "sqlite:/srv/a@b/order.db",
		"127.0.0.1:8080":               "127.0.0.1:8080",
		"http://a:8080,http://b:8080":  "http://a:8080,http://b:8080",
		"postgres://u:s3cret@h:1/db":   "postgres://u:xxxxx@h:1/db",
		"postgres://u@h/db?a=1&b=c,d":  "postgres://u@h/db?a=1&b=c,d",
		"postgres://u:s3cret@a,b/db":   "postgres://u:xxxxx@a,b/db",
		"etcd://u:s3cret@a:1,b:2/shop": "etcd://u:xxxxx@a:1,b:2/shop",

		"postgres://u@h/db?password=s3cret":                                  "postgres://u@h/db?password=xxxxx",
		"postgres:///db?host=/tmp&password=s3cret&sslmode=disable":           "postgres:///db?host=/tmp&password=xxxxx&sslmode=disable",
		"postgres:///db?host=/tmp&SSLpassword=s3cret":                        "postgres:///db?host=/tmp&SSLpassword=xxxxx",
		"postgres://h/db?p%61ssword=s3cret":                                  "postgres://h/db?p%61ssword=xxxxx",
		"postgres://h/db?password=s3&cret":                                   "postgres://h/db?password=xxxxx&xxxxx",
		"postgres://u:s3,cret@h/db":                                          "postgres://u:xxxxx@h/db",
		"postgres://u:s3@cret/s3?s3#s3@h/db":                                 "postgres://u:xxxxx@h/db",
		"postgres://u:%zzs3cret@h/db":                                        "postgres://u:xxxxx@h/db",
		"nats://u:s3,cret@a:1,nats://u:s3cret@b:2":                           "nats://u:xxxxx@a:1,nats://u:xxxxx@b:2",
		"nats://s3cret-token@a:1, tls://s3cret@b:2?ca=/ca.pem":               "nats://xxxxx@a:1, tls://xxxxx@b:2?ca=/ca.pem",
		"postgres://u:s3cret@h/db?password=s3@cret&user=a@b":                 "postgres://u:xxxxx@h/db?password=xxxxx&user=a@b",
		"postgres://h:5432,[::1]:5/db?password=s3@cret":                      "postgres://xxxxx",
		"postgres://h:5432,g/db?password=s3@cret":                            "postgres://h:5432,g/db?password=xxxxx",
		"postgres://[::1]:5432/db?password=s3@cret":                          "postgres://[::1]:5432/db?password=xxxxx",
		"postgres://u:s3?a=cret@h/db":                                        "postgres://xxxxx",
		"redis://:s3cret@h/shop":                                             "redis://:xxxxx@h/shop",
		"postgres:host=h password=s3cret dbname='x' sslpassword = 's3 cret'": "postgres:host=h password=xxxxx dbname='x' sslpassword = xxxxx",
	} {
		got := database.Shown(value)
		if got != want {
			t.Errorf("%s is shown as %s, want %s", value, got, want)
		}
		for _, all := range []string{got, database.Redacted(value)} {
			if strings.Contains(all, "s3") || strings.Contains(all, "cret") {
				t.Errorf("%s is shown as %s", value, all)
			}
		}
	}
	for at, want := range map[string]string{
		"postgres://u:s3cret@h:1/db?a=b": "postgres:u@h:1/db", "sqlite:/srv/a/order.db": "sqlite:order.db", "": "no URL", "nonsense": "no URL",
	} {
		if got := strings.ReplaceAll(database.Redacted(at), "//", ""); got != want {
			t.Errorf("%s is %s, want %s", at, got, want)
		}
	}
	said := database.WithoutPasswords("cannot parse `postgres:///db?host=/tmp&password=s3cret&sslmode=no`: sslmode is invalid")
	if want := "cannot parse `postgres:///db?host=/tmp&password=xxxxx&sslmode=no`: sslmode is invalid"; said != want {
		t.Errorf("an error says %s", said)
	}
}
