package config

import (
	"io"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// FirewallRule says that one host connects to another: an element of the list "egress" in a firewall file of conn-check.
type FirewallRule struct {
	FromHost string // "" if the file has none
	ToHost   string // an IP address or a host name
	Protocol string // "tcp" or "udp"
	Ports    []uint16
}

// LoadFirewallRules reads a file of firewall rules; path "-" is stdin. It ignores unknown keys, as conn-check did. An error is
// of type Errors and lists everything that is wrong with the file.
func LoadFirewallRules(path string, stdin io.Reader) ([]FirewallRule, error) {
	l, data, err := readOnce(path, stdin)
	if err != nil {
		return nil, err
	}
	d := decoder{loader: l}
	var rules []FirewallRule
	if root := l.parse(data); root != nil {
		for _, e := range d.entries(root, 0) {
			if e.name == "egress" {
				rules = d.rules(e)
			}
		}
	}
	if err := l.finish(); err != nil {
		return nil, err
	}
	return rules, nil
}

func (d *decoder) rules(e entry) []FirewallRule {
	n := resolveAlias(e.at)
	if isNull(n) {
		return nil
	}
	if n.Kind != yaml.SequenceNode || !hasCoreTag(n) {
		d.errorf(e.line, e.name, "expected a list of rules, got %s", describe(n))
		return nil
	}
	rules := make([]FirewallRule, 0, len(n.Content))
	for _, at := range n.Content {
		rules = append(rules, d.rule(at))
	}
	return rules
}

func (d *decoder) rule(at *yaml.Node) (r FirewallRule) {
	n := resolveAlias(at)
	if n.Kind != yaml.MappingNode || !hasCoreTag(n) {
		d.errorf(at.Line, "egress", "expected a rule with to_host, protocol and ports, got %s", describe(n))
		return r
	}
	lines := map[string]int{}
	for _, e := range d.entries(n, 1) {
		v := resolveAlias(e.at)
		lines[e.name] = e.line
		switch e.name {
		case "from_host":
			r.FromHost = d.word(e, v, isAny, "a host name")
		case "to_host":
			r.ToHost = d.word(e, v, isHost, "an IP address or a host name")
		case "protocol":
			r.Protocol = d.word(e, v, func(s string) bool { return s == "tcp" || s == "udp" }, "tcp or udp")
		case "ports":
			r.Ports = d.ports(e, v)
		}
	}
	for _, name := range []string{"to_host", "protocol", "ports"} {
		if lines[name] == 0 {
			d.errorf(at.Line, name, "is required in a rule")
		}
	}
	return r
}

func (d *decoder) word(e entry, n *yaml.Node, valid func(string) bool, want string) string {
	if n.Kind != yaml.ScalarNode || !hasCoreTag(n) || !valid(n.Value) {
		d.errorf(e.line, e.name, "expected %s, got %s", want, describe(n))
		return ""
	}
	return n.Value
}

func (d *decoder) ports(e entry, n *yaml.Node) []uint16 {
	const want = "expected a list of ports from 1 to 65535, got %s"
	if n.Kind != yaml.SequenceNode || !hasCoreTag(n) {
		d.errorf(e.line, e.name, want, describe(n))
		return nil
	}
	ports := make([]uint16, 0, len(n.Content))
	for _, at := range n.Content {
		v, ok := parseWhole(resolveAlias(at), 1, 65535)
		if !ok {
			d.errorf(at.Line, e.name, want, describe(resolveAlias(at)))
			continue
		}
		ports = append(ports, uint16(v))
	}
	return ports
}

// WriteFirewallRules writes rules in the format of conn-check-export-fw, which LoadFirewallRules reads.
func WriteFirewallRules(w io.Writer, rules []FirewallRule) error {
	list := &yaml.Node{Kind: yaml.SequenceNode}
	if len(rules) == 0 {
		list.Style = yaml.FlowStyle
	}
	for _, r := range rules {
		ports := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, p := range r.Ports {
			ports.Content = append(ports.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.Itoa(int(p))})
		}
		list.Content = append(list.Content, mapping(
			pair{"from_host", textNode(r.FromHost)}, pair{"ports", ports},
			pair{"protocol", textNode(r.Protocol)}, pair{"to_host", textNode(r.ToHost)},
		))
	}
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	e.CompactSeqIndent()
	if err := e.Encode(mapping(pair{"egress", list})); err != nil {
		return err
	}
	return e.Close()
}

// textNode returns a string node, which the encoder quotes if YAML would read it as another type.
func textNode(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

type pair struct {
	name  string
	value *yaml.Node
}

func mapping(pairs ...pair) *yaml.Node {
	m := &yaml.Node{Kind: yaml.MappingNode}
	for _, p := range pairs {
		m.Content = append(m.Content, textNode(p.name), p.value)
	}
	return m
}
