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

	"hacheck/internal/cmdline"
	"hacheck/internal/config"
)

// lookupTimeout bounds all look-ups of one command together.
const lookupTimeout = 30 * time.Second

// tool is a program that sets up a firewall.
type tool struct {
	name    string
	aliases []string
	// acceptsNames: it is told host names as they are, and resolves them itself.
	acceptsNames bool
	// rule returns the command for one rule. Nothing in a grant needs quotes.
	rule func(g destination, group string) string
}

// destination is one thing to be let out.
type destination struct {
	protocol string
	host     string     // a name when addr is not valid
	addr     netip.Addr // the zero Addr: host is a name
	port     uint16
}

func (g destination) cidr() string { return netip.PrefixFrom(g.addr, g.addr.BitLen()).String() }

// byFamily chooses between the words of a tool for IPv4 and for IPv6.
func (g destination) byFamily(v4, v6 string) string {
	if g.addr.Is6() {
		return v6
	}
	return v4
}

var tools = []tool{
	{name: "aws", aliases: []string{"amazon", "ec2"}, rule: func(g destination, group string) string {
		const command = "aws ec2 authorize-security-group-egress --group-id "
		if g.addr.Is6() { // --cidr is for IPv4 alone
			return fmt.Sprintf("%s%s --ip-permissions 'IpProtocol=%s,FromPort=%d,ToPort=%d,Ipv6Ranges=[{CidrIpv6=%s}]'",
				command, group, g.protocol, g.port, g.port, g.cidr())
		}
		return fmt.Sprintf("%s%s --protocol %s --port %d --cidr %s", command, group, g.protocol, g.port, g.cidr())
	}},
	{name: "neutron", aliases: []string{"openstack", "os"}, rule: func(g destination, group string) string {
		return fmt.Sprintf("neutron security-group-rule-create --direction egress --ethertype %s --protocol %s"+
			" --port-range-min %d --port-range-max %d --remote-ip-prefix %s %s",
			g.byFamily("IPv4", "IPv6"), g.protocol, g.port, g.port, g.cidr(), group)
	}},
	{name: "nova", rule: func(g destination, group string) string {
		return fmt.Sprintf("nova secgroup-add-rule %s %s %d %d %s", group, g.protocol, g.port, g.port, g.cidr())
	}},
	{name: "iptables", acceptsNames: true, rule: func(g destination, _ string) string {
		return fmt.Sprintf("%s -A OUTPUT -p %s --dport %d -d %s -j ACCEPT", g.byFamily("iptables", "ip6tables"), g.protocol, g.port, g.host)
	}},
	{name: "nftables", rule: func(g destination, _ string) string {
		return fmt.Sprintf("nft add rule inet filter output %s daddr %s %s dport %d accept", g.byFamily("ip", "ip6"), g.addr, g.protocol, g.port)
	}},
	{name: "ufw", rule: func(g destination, _ string) string {
		return fmt.Sprintf("ufw allow out proto %s from any to %s port %d", g.protocol, g.cidr(), g.port)
	}},
}

const convertSynopsis = "-t TYPE [options] FILE..."

const convertAbout = `Turn the rules in FILEs into commands that let these connections out, sorted and each once; FILEs are what
"hacheck firewall export" prints. Nothing is changed: read the commands, then run them. Names are resolved here,
to all their IPv4 addresses, or to the IPv6 ones of a name that has no others; iptables alone is given the
names. "-" is standard input.
`

const convertExit = `Types: aws (also amazon, ec2), neutron (openstack, os), nova, iptables, nftables, ufw.

Exit status: 0 done, 2 a name cannot be resolved, 3 the command line or a FILE is wrong; unless it is 0
nothing was printed.
`

func (c *command) convert(args []string) int {
	var typ, group string
	var help, version bool
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.SortFlags = false
	f.StringVarP(&typ, "type", "t", "", "print commands for `TYPE`")
	f.StringVar(&group, "group", "", "the security group of aws (its id), neutron or nova (its name) that gets\nthe rules; `GROUP` is $SECGROUP by default, for the shell to fill in")
	f.BoolVarP(&help, "help", "h", false, "print this help")
	f.BoolVar(&version, "version", false, "print the version")
	if err := cmdline.Parse(f, args); err != nil {
		return c.usageError(err, convertSynopsis)
	}
	switch {
	case help:
		_, _ = fmt.Fprintf(c.out, "Usage: %s %s\n\n%s\nOptions:\n%s\n%s", c.name, convertSynopsis, convertAbout, f.FlagUsages(), convertExit)
		return ExitOK
	case version:
		_, _ = fmt.Fprintf(c.out, "%s %s\n", c.name, c.Version)
		return ExitOK
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
	var rules []config.Rule
	var wrong error
	for _, file := range f.Args() {
		r, err := config.LoadRules(file, c.Stdin)
		rules, wrong = append(rules, r...), errors.Join(wrong, err)
	}
	if wrong != nil {
		return c.fileError(wrong)
	}
	grants, err := c.destinations(rules, t.acceptsNames)
	if err != nil {
		c.errorf("%v", err)
		return ExitFailed
	}
	for _, g := range grants {
		_, _ = fmt.Fprintln(c.out, t.rule(g, group))
	}
	return ExitOK
}

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

// destinations returns what rules let out, sorted and each once. Names are kept, or resolved: then the error
// names all those that cannot be.
func (c *command) destinations(rules []config.Rule, names bool) ([]destination, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	var errs error
	resolved := map[string][]netip.Addr{}
	set := map[destination]bool{}
	for _, r := range rules {
		addrs, known := resolved[r.ToHost]
		if !known {
			var err error
			addrs, err = c.resolve(ctx, r.ToHost, names)
			errs = errors.Join(errs, err)
			resolved[r.ToHost] = addrs
		}
		for _, p := range r.Ports {
			for _, a := range addrs {
				set[destination{r.Protocol, r.ToHost, a, p}.plain()] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(set), func(a, b destination) int {
		return cmp.Or(a.addr.Compare(b.addr), cmp.Compare(a.host, b.host), cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.port, b.port))
	}), errs
}

// plain drops the name that an address was found by, so that two names of one address are one grant.
func (g destination) plain() destination {
	if g.addr.IsValid() {
		g.host = g.addr.String()
	}
	return g
}

// resolve returns the addresses of host. The zero Addr stands for a name that is to be kept.
func (c *command) resolve(ctx context.Context, host string, names bool) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	if names {
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

// shellQuote returns s as one word of a shell.
func shellQuote(s string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+,", r)
	}
	if s != "" && s[0] != '-' && strings.IndexFunc(s, func(r rune) bool { return !safe(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
