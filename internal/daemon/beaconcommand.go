package daemon

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"hacheck/internal/beacon"
	"hacheck/internal/check"
	"hacheck/internal/clients"
	"hacheck/internal/health"
	"hacheck/internal/loglimit"
	"hacheck/internal/spool"
)

// beaconInterval is how often hacheck beacon checks the UDP port.
const beaconInterval = time.Second

const beaconAbout = `Usage: hacheck beacon [options] UDP_PORT TCP_PORT

Keep TCP_PORT open only while something on this machine listens on UDP_PORT, as udp_healther.py does,
for load balancers that cannot check UDP. A client that connects gets "OK".

`

func runBeacon(args []string, env Env) int {
	sig := prepareProcess()
	var service, root string
	f := pflag.NewFlagSet("hacheck beacon", pflag.ContinueOnError)
	f.SortFlags = false
	f.StringVar(&service, "service", "", "obey the overrides of service `NAME` too, not only those of all")
	f.StringVar(&root, "spool-root", defaultSpoolRoot, "`DIR` that holds the overrides; when it does not exist there are none")
	if done, code := parseSubcommand(f, beaconAbout, args, env); done {
		return code
	}
	if f.NArg() != 2 {
		return usage(f, env, fmt.Errorf("expected a UDP port and a TCP port, got %d arguments", f.NArg()))
	}
	var ports [2]uint16
	for i, a := range f.Args() {
		n, err := strconv.ParseUint(a, 10, 16)
		if err != nil || n == 0 {
			return usage(f, env, fmt.Errorf("%q is no port from 1 to 65535", a))
		}
		ports[i] = uint16(n)
	}
	if service != "" && !spool.ValidService(service) {
		return usage(f, env, fmt.Errorf("--service %q is no service name: use letters, digits, '.', '_' and '-'", service))
	}
	log := slog.New(newStreamHandler(env.Stderr, slog.LevelWarn))
	overrides, err := openOverrides(root, log)
	if err != nil {
		printError(env.Stderr, "hacheck beacon: %v", err)
		return 1
	}
	b := &udpBeacon{
		service: cmp.Or(service, spool.All), udpPort: ports[0], overrides: overrides,
		log: log, logLimit: loglimit.New(log), stdout: env.Stdout,
	}
	b.run(ports[1], sig)
	return 0
}

// udpBeacon is hacheck beacon. Its lines on stdout are those of udp_healther.
type udpBeacon struct {
	service   string
	udpPort   uint16
	overrides health.Overrides
	log       *slog.Logger
	logLimit  *loglimit.Limiter
	stdout    io.Writer
	found     bool // the last line said that something listens; only observe uses it
}

// run keeps the TCP port open while the UDP port is in use, until a signal to stop.
func (b *udpBeacon) run(tcpPort uint16, sig signals) {
	b.print("Starting UDP Healther. Looking for udp port %d and running tcp on port %d", b.udpPort, tcpPort)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-sig.stop
		cancel()
	}()
	_ = beacon.Run(ctx, beacon.Options{ // returns when ctx ends
		Addr:     net.JoinHostPort("", strconv.Itoa(int(tcpPort))),
		Interval: func() time.Duration { return beaconInterval },
		Conns:    newConnLimiter(b.log),
		Healthy:  func(context.Context) bool { return b.isHealthy() },
		Observe:  b.observe,
	})
	b.print("Exiting...")
}

func (b *udpBeacon) print(format string, args ...any) {
	_, _ = fmt.Fprintf(b.stdout, format+"\n", args...)
}

func (b *udpBeacon) isHealthy() bool {
	if o := b.overrides.Lookup(b.service, "", b.udpPort, true).Override; o != nil {
		return o.State == spool.ForceUp
	}
	listening, err := check.UDPListening(b.udpPort)
	if err != nil {
		const message = "cannot tell which UDP ports are in use"
		if b.logLimit.Allow(loglimit.Service, message, message) {
			b.log.Warn(message, "err", err)
		}
	}
	return listening
}

func (b *udpBeacon) observe(e beacon.Event, addr net.Addr, err error) {
	switch e {
	case beacon.Unhealthy:
		if b.found {
			b.print("UDP listener gone, killing TCP listener") // also if the TCP port could not be opened
		} else {
			b.print("UDP listener not found. Waiting...")
		}
		b.found = false
	case beacon.Healthy:
		b.found = true
		b.print("UDP listener found, starting TCP listener")
	case beacon.Connection:
		host, port, _ := net.SplitHostPort(addr.String())
		if b.logLimit.Allow(loglimit.Connection, clients.NetworkOf(host).String(), "Got a connection") {
			b.print("Got a connection from ('%s', %s)", host, port)
		}
	case beacon.BindFailed:
		b.print("Cant bind to socket")
	case beacon.AcceptFailed:
		const message = "cannot accept connections"
		if b.logLimit.Allow(loglimit.Service, message, message) {
			b.log.Warn(message, "err", err)
		}
	case beacon.Opened, beacon.Closed:
	}
}
