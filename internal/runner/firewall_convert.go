package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"hacheck/internal/config"
)

// lookupTimeout bounds all name lookups of one command together.
const lookupTimeout = 30 * time.Second

// tool is a program that configures a firewall.
type tool struct {
	name         string
	aliases      []string
	acceptsNames bool // it resolves host names itself
	// rule returns the command that allows d. group is a shell word; nothing in d needs quotes.
	rule func(d destination, group string) string
}

// destination is one port of one host that the firewall must allow. It is comparable.
type destination struct {
	protocol string
	host     string     // a name, or the text of addr
	addr     netip.Addr // the zero Addr if host is a name
	port     uint16
}

func (d destination) cidr() string { return netip.PrefixFrom(d.addr, d.addr.BitLen()).String() }

// byFamily returns v4 or v6 by the address family; v4 for a name.
func (d destination) byFamily(v4, v6 string) string {
	if d.addr.Is6() {
		return v6
	}
	return v4
}

var tools = []tool{
	{name: "aws", aliases: []string{"amazon", "ec2"}, rule: func(d destination, group string) string {
		const command = "aws ec2 authorize-security-group-egress --group-id "
		if d.addr.Is6() { // --cidr accepts IPv4 only
			return fmt.Sprintf("%s%s --ip-permissions 'IpProtocol=%s,FromPort=%d,ToPort=%d,Ipv6Ranges=[{CidrIpv6=%s}]'",
				command, group, d.protocol, d.port, d.port, d.cidr())
		}
		return fmt.Sprintf("%s%s --protocol %s --port %d --cidr %s", command, group, d.protocol, d.port, d.cidr())
	}},
	{name: "neutron", aliases: []string{"openstack", "os"}, rule: func(d destination, group string) string {
		return fmt.Sprintf("neutron security-group-rule-create --direction egress --ethertype %s --protocol %s"+
			" --port-range-min %d --port-range-max %d --remote-ip-prefix %s %s",
			d.byFamily("IPv4", "IPv6"), d.protocol, d.port, d.port, d.cidr(), group)
	}},
	{name: "nova", rule: func(d destination, group string) string {
		return fmt.Sprintf("nova secgroup-add-rule %s %s %d %d %s", group, d.protocol, d.port, d.port, d.cidr())
	}},
	{name: "iptables", acceptsNames: true, rule: func(d destination, _ string) string {
		return fmt.Sprintf("%s -A OUTPUT -p %s --dport %d -d %s -j ACCEPT", d.byFamily("iptables", "ip6tables"), d.protocol, d.port, d.host)
	}},
	{name: "nftables", rule: func(d destination, _ string) string {
		return fmt.Sprintf("nft add rule inet filter output %s daddr %s %s dport %d accept", d.byFamily("ip", "ip6"), d.addr, d.protocol, d.port)
	}},
	{name: "ufw", rule: func(d destination, _ string) string {
		return fmt.Sprintf("ufw allow out proto %s from any to %s port %d", d.protocol, d.cidr(), d.port)
	}},
}

const convertSynopsis = "-t TYPE [options] FILE..."

const convertAbout = `Turn the rules in FILEs into commands that allow these connections, sorted and without duplicates. FILEs are
the output of "hacheck firewall export"; "-" is standard input. Nothing is changed: read the commands, then run
them. Each name is replaced by all its IPv4 addresses, or by its IPv6 addresses if it has no others. Only iptables
gets the names themselves.
`

const convertExit = `Types: aws (also amazon, ec2), neutron (openstack, os), nova, iptables, nftables, ufw.

Exit status: 0 done, 2 a name cannot be resolved, 3 the command line or a FILE is wrong. With 2 and 3 no command
is printed.
`

// convert prints the commands for the rules in files.
func (c *command) convert(args []string) int {
	var typ, group string
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.StringVarP(&typ, "type", "t", "", "print commands for `TYPE`: aws, neutron, nova, iptables, nftables or ufw")
	f.StringVar(&group, "group", "", "the security group of aws (its id), neutron or nova (its name) that gets\nthe rules; `GROUP` is $SECGROUP by default, for the shell to fill in")
	if code, done := c.parse(f, args, usage{convertSynopsis, convertAbout, convertExit}); done {
		return code
	}
	t, err := findTool(typ)
	if err != nil {
		return c.usageError(err, convertSynopsis)
	}
	if f.NArg() == 0 {
		return c.usageError(errors.New("name a file with rules, or - for standard input"), convertSynopsis)
	}
	if f.Changed("group") {
		group = shellQuote(group)
	} else {
		group = "$SECGROUP"
	}
	var rules []config.FirewallRule
	var errs error
	for _, file := range f.Args() {
		r, err := config.LoadFirewallRules(file, c.Stdin)
		rules, errs = append(rules, r...), errors.Join(errs, err)
	}
	if errs != nil {
		return c.fileError(errs)
	}
	allowed, err := c.destinations(rules, t.acceptsNames)
	if err != nil {
		c.errorf("%v", err)
		return ExitFailed
	}
	for _, d := range allowed {
		_, _ = fmt.Fprintln(c.out, t.rule(d, group))
	}
	return ExitOK
}

// findTool returns the tool with a name or alias, in any letter case.
func findTool(typ string) (tool, error) {
	if typ == "" {
		return tool{}, errors.New("say for what, with -t: aws, neutron, nova, iptables, nftables or ufw")
	}
	name := strings.ToLower(typ)
	for _, t := range tools {
		if t.name == name || slices.Contains(t.aliases, name) {
			return t, nil
		}
	}
	return tool{}, fmt.Errorf("option -t, --type: invalid value %q: want aws, neutron, nova, iptables, nftables or ufw", typ)
}

// destinations returns the destinations of rules, sorted and without duplicates. It resolves the names unless
// keepNames is set. The error names every name that cannot be resolved.
func (c *command) destinations(rules []config.FirewallRule, keepNames bool) ([]destination, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	var errs error
	resolved := map[string][]netip.Addr{}
	set := map[destination]bool{}
	for _, r := range rules {
		addrs, known := resolved[r.ToHost]
		if !known {
			var err error
			addrs, err = c.resolve(ctx, r.ToHost, keepNames)
			errs = errors.Join(errs, err)
			resolved[r.ToHost] = addrs
		}
		for _, p := range r.Ports {
			for _, a := range addrs {
				d := destination{r.Protocol, r.ToHost, a, p}
				if a.IsValid() {
					d.host = a.String() // two names of one address are one destination
				}
				set[d] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(set), func(a, b destination) int {
		return cmp.Or(a.addr.Compare(b.addr), cmp.Compare(a.host, b.host), cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.port, b.port))
	}), errs
}

// resolve returns the IPv4 addresses of host, or its IPv6 addresses if it has no others. With keepNames it returns
// the zero Addr for a name.
func (c *command) resolve(ctx context.Context, host string, keepNames bool) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	if keepNames {
		return []netip.Addr{{}}, nil
	}
	all, err := c.Lookup(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", host, err)
	}
	var v4, v6 []netip.Addr
	for _, a := range all {
		if a = a.Unmap().WithZone(""); a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	if len(v4) > 0 {
		return v4, nil
	}
	if len(v6) > 0 {
		return v6, nil
	}
	return nil, fmt.Errorf("resolve %s: it has no address", host)
}

// shellQuote returns s quoted as one word for a shell.
func shellQuote(s string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+,", r)
	}
	if s != "" && s[0] != '-' && strings.IndexFunc(s, func(r rune) bool { return !safe(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
