package config

import (
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

func seconds(low, high float64, field func(*Config) *time.Duration) func(*Config, *yaml.Node) []*yaml.Node {
	return func(c *Config, n *yaml.Node) []*yaml.Node {
		v, ok := parseDecimal(n)
		if !ok || v < low || v > high {
			return []*yaml.Node{n}
		}
		*field(c) = time.Duration(math.Round(v * float64(time.Second)))
		return nil
	}
}

func wholeNumber(low, high int64, store func(*Config, int64)) func(*Config, *yaml.Node) []*yaml.Node {
	return func(c *Config, n *yaml.Node) []*yaml.Node {
		v, ok := parseWhole(n, low, high)
		if !ok {
			return []*yaml.Node{n}
		}
		store(c, v)
		return nil
	}
}

func fileLimit(c *Config, n *yaml.Node) []*yaml.Node {
	if n.Kind == yaml.ScalarNode && n.Value == "max" {
		c.RlimitNoFile = RlimitMax
		return nil
	}
	v, ok := parseWhole(n, 1, maxFiles)
	if !ok {
		return []*yaml.Node{n}
	}
	c.RlimitNoFile = v
	return nil
}

// boolean accepts the words of YAML 1.1, quoted or not: the original read the string "false" as true.
func boolean(field func(*Config) *bool) func(*Config, *yaml.Node) []*yaml.Node {
	return func(c *Config, n *yaml.Node) []*yaml.Node {
		if n.Kind == yaml.ScalarNode {
			switch strings.ToLower(n.Value) {
			case "true", "yes", "on", "y":
				*field(c) = true
				return nil
			case "false", "no", "off", "n":
				*field(c) = false
				return nil
			}
		}
		return []*yaml.Node{n}
	}
}

// textValue accepts a scalar as it is written, so that a user name of 0123 or yes needs no quotes.
func textValue(valid func(string) bool, field func(*Config) *string) func(*Config, *yaml.Node) []*yaml.Node {
	return func(c *Config, n *yaml.Node) []*yaml.Node {
		if n.Kind != yaml.ScalarNode || !valid(n.Value) {
			return []*yaml.Node{n}
		}
		*field(c) = n.Value
		return nil
	}
}

func secretValue(valid func(string) bool, field func(*Config) *Secret) func(*Config, *yaml.Node) []*yaml.Node {
	return func(c *Config, n *yaml.Node) []*yaml.Node {
		if n.Kind != yaml.ScalarNode || !valid(n.Value) {
			return []*yaml.Node{n}
		}
		*field(c) = NewSecret(n.Value)
		return nil
	}
}

func headerNames(c *Config, n *yaml.Node) (wrong []*yaml.Node) {
	list, ok := listElements(n)
	if !ok {
		return []*yaml.Node{n}
	}
	names := make([]string, 0, len(list))
	for _, e := range list {
		if e.Kind != yaml.ScalarNode || isNull(e) || !isHeader(e.Value) { // "null" and "~" would be valid names
			wrong = append(wrong, e)
			continue
		}
		if !containsFold(names, e.Value) {
			names = append(names, e.Value)
		}
	}
	c.HTTPHeadersToCopy = names
	return wrong
}

func containsFold(list []string, s string) bool {
	for _, l := range list {
		if strings.EqualFold(l, s) {
			return true
		}
	}
	return false
}

func networks(field func(*Config) *[]netip.Prefix) func(*Config, *yaml.Node) []*yaml.Node {
	return func(c *Config, n *yaml.Node) (wrong []*yaml.Node) {
		list, ok := listElements(n)
		if !ok {
			return []*yaml.Node{n}
		}
		nets := make([]netip.Prefix, 0, len(list))
		for _, e := range list {
			p, ok := parseNetwork(e)
			if !ok {
				wrong = append(wrong, e)
				continue
			}
			nets = append(nets, p)
		}
		*field(c) = nets
		return wrong
	}
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

// listElements returns the elements of a list. A single value is a list of one.
func listElements(n *yaml.Node) ([]*yaml.Node, bool) {
	switch {
	case n.Kind == yaml.ScalarNode && !isNull(n):
		return []*yaml.Node{n}, true
	case n.Kind == yaml.SequenceNode && len(n.Content) <= maxListed:
		list := make([]*yaml.Node, len(n.Content))
		for i, e := range n.Content {
			list[i] = resolveAlias(e)
		}
		return list, true
	}
	return nil, false
}

func parseWhole(n *yaml.Node, low, high int64) (int64, bool) {
	v, ok := parseDecimal(n)
	// The bounds are far below 2^53, so a float64 holds every number between them exactly.
	return int64(v), ok && v == math.Trunc(v) && v >= float64(low) && v <= float64(high)
}

func parseDecimal(n *yaml.Node) (float64, bool) {
	s := strings.TrimSpace(n.Value)
	if n.Kind != yaml.ScalarNode || !isNumber(s) {
		return 0, false
	}
	v, err := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64)
	return v, err == nil
}

// isNumber reports whether s is a decimal number such as "15", "1.5", ".5", "1e3" or "1_000". It refuses the other
// numbers of YAML 1.1 (0x10, 010 for 8, 1:30 for 90, .inf, .nan): an operator who writes 010 rarely means 8.
func isNumber(s string) bool {
	if s != "" && (s[0] == '-' || s[0] == '+') {
		s = s[1:]
	}
	mantissa, exponent, hasExponent := strings.Cut(strings.ToLower(s), "e")
	whole, fraction, hasFraction := strings.Cut(mantissa, ".")
	switch {
	case whole == "" && (!hasFraction || fraction == ""), strings.HasPrefix(whole, "_"), strings.HasPrefix(fraction, "_"):
		return false
	case len(whole) > 1 && whole[0] == '0':
		return false
	}
	if hasExponent {
		if exponent != "" && (exponent[0] == '-' || exponent[0] == '+') {
			exponent = exponent[1:]
		}
		if exponent == "" || !consistsOf(exponent, digits) {
			return false
		}
	}
	return consistsOf(whole, digits+"_") && consistsOf(fraction, digits+"_")
}
