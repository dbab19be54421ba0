package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// known are the settings that a configuration file may have, and what they are. A
// setting of a service, such as order.db, is the flag --db of shop order and the flag
// --order-db of shop serve.
var known = []struct{ name, help string }{
	{"data", "directory of databases that have no URL"},
	{"token-file", "file with the operator's token"},
	{"nats", "URL of NATS servers, or pull:"},
	{"opening", "opening stock of products that nobody has defined"},
	{"order.db", "URL of Order's database"},
	{"order.views", "URL of Order's read models"},
	{"order.nats", "the same with Order's user"},
	{"order.addr", "where Order listens"},
	{"order.url", "base URLs of Order's instances"},
	{"inventory.db", "URL of Inventory's database"},
	{"inventory.cache", "URL of a cache that Inventory's instances share"},
	{"inventory.nats", "the same with Inventory's user"},
	{"inventory.addr", "where Inventory listens"},
	{"inventory.url", "base URLs of Inventory's instances"},
	{"billing.db", "URL of Billing's database"},
	{"billing.nats", "the same with Billing's user"},
	{"billing.addr", "where Billing listens"},
	{"billing.url", "base URLs of Billing's instances"},
}

// settings are those of a configuration file.
type settings map[string]string

// readSettings reads YAML: a setting of a service stands below the service's name.
func readSettings(r io.Reader) (settings, error) {
	var tree map[string]any
	d := yaml.NewDecoder(r)
	if err := d.Decode(&tree); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	s := settings{}
	return s, s.flatten("", tree)
}

func (s settings) flatten(prefix string, tree map[string]any) error {
	for name, value := range tree {
		name = prefix + name
		switch value := value.(type) {
		case map[string]any:
			if prefix != "" {
				return fmt.Errorf("configuration: %s: want a value, not more settings", name)
			}
			if err := s.flatten(name+".", value); err != nil {
				return err
			}
			continue
		case []any:
			var all []string
			for _, one := range value {
				all = append(all, fmt.Sprint(one))
			}
			s[name] = strings.Join(all, ",")
		case nil:
			continue
		default:
			s[name] = fmt.Sprint(value)
		}
		if !slices.ContainsFunc(known, func(k struct{ name, help string }) bool { return k.name == name }) {
			var names []string
			for _, k := range known {
				names = append(names, k.name)
			}
			return fmt.Errorf("configuration: there is no setting %s: want one of %s", name, strings.Join(names, ", "))
		}
	}
	return nil
}

// keyOf is the setting that a command's flag takes.
func keyOf(command, flag string) string {
	service := slices.Contains([]string{"order", "inventory", "billing"}, command)
	switch {
	case flag == "url":
		return "order.url"
	case slices.Contains([]string{"order", "inventory", "billing"}, flag):
		return flag + ".url"
	case service && slices.Contains([]string{"db", "views", "cache", "addr"}, flag):
		return command + "." + flag
	}
	for _, name := range []string{"order-", "inventory-", "billing-"} {
		if rest, ok := strings.CutPrefix(flag, name); ok {
			return name[:len(name)-1] + "." + rest
		}
	}
	return flag
}

// loadSettings makes a configuration file a source of flags: what stands on the
// command line or in the environment has precedence.
func loadSettings(r io.Reader) (kong.Resolver, error) {
	s, err := readSettings(r)
	if err != nil {
		return nil, err
	}
	return kong.ResolverFunc(func(_ *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
		for _, name := range flag.Envs {
			if _, set := os.LookupEnv(name); set {
				return nil, nil
			}
		}
		command := ""
		if parent.Command != nil {
			command = parent.Command.Name
		}
		value, ok := s[command+"."+flag.Name] // such as order.nats
		if !ok {
			value, ok = s[keyOf(command, flag.Name)]
		}
		if !ok {
			return nil, nil
		}
		return value, nil
	}), nil
}
