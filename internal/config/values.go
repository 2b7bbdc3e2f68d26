package config

import (
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// setter stores the value of a key. It returns the nodes with a wrong value.
type setter = func(c *Config, n *yaml.Node) (wrong []*yaml.Node)

// value returns the setter of a field. parse returns false for a wrong value.
func value[T any](parse func(*yaml.Node) (T, bool), field func(*Config) *T) setter {
	return func(c *Config, n *yaml.Node) []*yaml.Node {
		v, ok := parse(n)
		if !ok {
			return []*yaml.Node{n}
		}
		*field(c) = v
		return nil
	}
}

// list returns the setter of a list whose elements parse reads. It drops an element that isSame finds in the list
// already; nil keeps all.
func list[T any](parse func(*yaml.Node) (T, bool), isSame func(a, b T) bool, field func(*Config) *[]T) setter {
	return func(c *Config, n *yaml.Node) (wrong []*yaml.Node) {
		elements, ok := listElements(n)
		if !ok {
			return []*yaml.Node{n}
		}
		values := make([]T, 0, len(elements))
		for _, e := range elements {
			v, ok := parse(e)
			if !ok {
				wrong = append(wrong, e)
			} else if isSame == nil || !slices.ContainsFunc(values, func(other T) bool { return isSame(v, other) }) {
				values = append(values, v)
			}
		}
		*field(c) = values
		return wrong
	}
}

// listElements returns the elements of a list. A single value is a list of one.
func listElements(n *yaml.Node) ([]*yaml.Node, bool) {
	switch {
	case n.Kind == yaml.ScalarNode && !isNull(n):
		return []*yaml.Node{n}, true
	case n.Kind == yaml.SequenceNode && len(n.Content) <= maxListed:
		elements := make([]*yaml.Node, len(n.Content))
		for i, e := range n.Content {
			elements[i] = resolveAlias(e)
		}
		return elements, true
	}
	return nil, false
}

func seconds(low, high float64) func(*yaml.Node) (time.Duration, bool) {
	return func(n *yaml.Node) (time.Duration, bool) {
		v, ok := parseDecimal(n)
		return time.Duration(math.Round(v * float64(time.Second))), ok && v >= low && v <= high
	}
}

func wholeNumber[T int | int64](low, high int64) func(*yaml.Node) (T, bool) {
	return func(n *yaml.Node) (T, bool) {
		v, ok := parseWhole(n, low, high)
		return T(v), ok
	}
}

func fileLimit(n *yaml.Node) (int64, bool) {
	if n.Kind == yaml.ScalarNode && n.Value == "max" {
		return RlimitMax, true
	}
	return parseWhole(n, 1, maxFiles)
}

// boolean accepts the words of YAML 1.1, quoted or not: the original read the string "false" as true.
func boolean(n *yaml.Node) (v, ok bool) {
	if n.Kind != yaml.ScalarNode {
		return false, false
	}
	switch strings.ToLower(n.Value) {
	case "true", "yes", "on", "y":
		return true, true
	case "false", "no", "off", "n":
		return false, true
	}
	return false, false
}

// textValue accepts a scalar as it is written, so that a user name of 0123 or yes needs no quotes.
func textValue(isValid func(string) bool) func(*yaml.Node) (string, bool) {
	return func(n *yaml.Node) (string, bool) { return n.Value, n.Kind == yaml.ScalarNode && isValid(n.Value) }
}

// secretValue is textValue for a Secret.
func secretValue(isValid func(string) bool) func(*yaml.Node) (Secret, bool) {
	return func(n *yaml.Node) (Secret, bool) {
		return NewSecret(n.Value), n.Kind == yaml.ScalarNode && isValid(n.Value)
	}
}

func headerName(n *yaml.Node) (string, bool) {
	return n.Value, n.Kind == yaml.ScalarNode && !isNull(n) && isHeader(n.Value) // "null" and "~" would be valid names
}

// parseNetwork parses a network or an address. It converts IPv4 in IPv6 form to IPv4, like the addresses that the
// network is compared with, unless the network is larger than all of IPv4 in that form.
func parseNetwork(n *yaml.Node) (netip.Prefix, bool) {
	if n.Kind != yaml.ScalarNode {
		return netip.Prefix{}, false
	}
	if a, err := netip.ParseAddr(n.Value); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(n.Value)
	if err != nil {
		return netip.Prefix{}, false
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), true
}

func parseWhole(n *yaml.Node, low, high int64) (int64, bool) {
	v, ok := parseDecimal(n)
	// The bounds are far below 2^53, so a float64 holds every number between them exactly.
	return int64(v), ok && v == math.Trunc(v) && v >= float64(low) && v <= float64(high)
}

func parseDecimal(n *yaml.Node) (float64, bool) {
	s := strings.TrimSpace(n.Value)
	if n.Kind != yaml.ScalarNode || !decimalNumber.MatchString(s) {
		return 0, false
	}
	v, err := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64)
	return v, err == nil
}

// decimalNumber matches decimal numbers such as "15", "1.5", ".5", "1e3" and "1_000". It refuses the other numbers of
// YAML 1.1 (0x10, 010 for 8, 1:30 for 90, .inf, .nan): an operator who writes 010 rarely means 8.
var decimalNumber = regexp.MustCompile(`^[-+]?((0|[1-9][0-9_]*)(\.([0-9][0-9_]*)?)?|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?$`)
