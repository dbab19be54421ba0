package nats

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/freehold-go/freehold"
)

// Permissions are the subjects that a service's user of a NATS server needs, and no
// more: it publishes under its own source only, and reads the sources that it declares.
type Permissions struct {
	Publish   []string
	Subscribe []string
}

// PermissionsOf returns what the user of the service own needs to read other sources.
// The service connects with Options.Service, so that its inboxes are its own.
func PermissionsOf(own freehold.Source, reads ...freehold.Source) Permissions {
	name := streamName(own)
	p := Permissions{
		Publish: []string{
			name + ".>", headSubject(own), "$JS.API.INFO",
			"$JS.API.STREAM.CREATE." + name, "$JS.API.STREAM.UPDATE." + name, "$JS.API.STREAM.INFO." + name,
			"$JS.API.STREAM.MSG.GET." + name, "$JS.API.DIRECT.GET." + name, "$JS.API.DIRECT.GET." + name + ".>",
		},
		Subscribe: []string{inboxPrefix(own) + ".>"},
	}
	for _, s := range reads {
		name := streamName(s)
		p.Publish = append(p.Publish, "$JS.API.STREAM.INFO."+name, "$JS.API.CONSUMER.CREATE."+name+".>", "$JS.API.CONSUMER.CREATE."+name,
			"$JS.API.CONSUMER.DELETE."+name+".*", "$JS.API.CONSUMER.INFO."+name+".*", "$JS.FC."+name+".>",
			"$JS.API.STREAM.MSG.GET."+name, "$JS.API.DIRECT.GET."+name, "$JS.API.DIRECT.GET."+name+".>")
		p.Subscribe = append(p.Subscribe, headSubject(s))
	}
	slices.Sort(p.Publish)
	return p
}

// String is the permissions as they stand in a server's configuration.
func (p Permissions) String() string {
	return fmt.Sprintf("{ publish: { allow: [%s] }, subscribe: { allow: [%s] } }", quoted(p.Publish), quoted(p.Subscribe))
}

func quoted(subjects []string) string {
	all := make([]string, len(subjects))
	for i, s := range subjects {
		all[i] = strconv.Quote(s)
	}
	return strings.Join(all, ", ")
}

func inboxPrefix(s freehold.Source) string { return "_INBOX." + streamName(s) }
