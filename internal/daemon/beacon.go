package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"hacheck/internal/beacon"
	"hacheck/internal/check"
	"hacheck/internal/clients"
	"hacheck/internal/loglimit"
	"hacheck/internal/spool"
)

// beaconInterval is how often hacheck beacon looks for the UDP port.
const beaconInterval = time.Second

const beaconAbout = `Usage: hacheck beacon [options] UDP_PORT TCP_PORT

Keep TCP_PORT open only while something on this machine listens on UDP_PORT, as udp_healther.py does,
for load balancers that cannot check UDP. Who connects is sent "OK".

`

func runBeacon(args []string, env Env) int {
	sig := serviceSignals()
	var service, root string
	f := pflag.NewFlagSet("hacheck beacon", pflag.ContinueOnError)
	f.SortFlags = false
	f.StringVar(&service, "service", "", "obey the overrides of service `NAME`, besides those of all")
	f.StringVar(&root, "spool-root", defaultSpoolRoot, "`DIR` that holds the overrides; when it does not exist there are none")
	if done, code := parseSub(f, beaconAbout, args, env); done {
		return code
	}
	if f.NArg() != 2 {
		return usage(f, env.Stderr, fmt.Errorf("expected a UDP port and a TCP port, got %d arguments", f.NArg()))
	}
	var ports [2]uint16
	for i, a := range f.Args() {
		n, err := strconv.ParseUint(a, 10, 16)
		if err != nil || n == 0 {
			return usage(f, env.Stderr, fmt.Errorf("%q is no port from 1 to 65535", a))
		}
		ports[i] = uint16(n)
	}
	if service == "" {
		service = spool.All
	} else if !spool.ValidService(service) {
		return usage(f, env.Stderr, fmt.Errorf("--service %q is no service name: use letters, digits, '.', '_' and '-'", service))
	}
	log := slog.New(newHandler("text", env.Stderr, slog.LevelWarn))
	limit := loglimit.New(log)
	overrides, err := openOverrides(root, log)
	if err != nil {
		complain(env.Stderr, "hacheck beacon: %v", err)
		return 1
	}

	say := func(format string, args ...any) { _, _ = fmt.Fprintf(env.Stdout, format+"\n", args...) }
	say("Starting UDP Healther. Looking for udp port %d and running tcp on port %d", ports[0], ports[1])
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-sig.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	found := false
	_ = beacon.Run(ctx, beacon.Options{ // it ends with ctx only
		Addr:     net.JoinHostPort("", strconv.Itoa(int(ports[1]))),
		Interval: beaconInterval,
		Conns:    newConnLimiter(log),
		Healthy: func(context.Context) bool {
			switch o := overrides.Lookup(service, "", ports[0], true).Override; {
			case o == nil:
			case o.State == spool.ForceUp:
				return true
			default:
				return false
			}
			listening, err := check.UDPListening(ports[0])
			if err != nil {
				const unknown = "cannot tell which UDP ports are in use"
				if limit.Allow(loglimit.Service, unknown, unknown) {
					log.Warn(unknown, "err", err)
				}
			}
			return listening
		},
		Observe: func(e beacon.Event, a net.Addr, err error) {
			switch e {
			case beacon.Unhealthy:
				if found {
					say("UDP listener gone, killing TCP listener") // also one that could not bind
				} else {
					say("UDP listener not found. Waiting...")
				}
				found = false
			case beacon.Healthy:
				found = true
				say("UDP listener found, starting TCP listener")
			case beacon.Opened, beacon.Closed:
			case beacon.Connection:
				host, port, _ := net.SplitHostPort(a.String())
				if limit.Allow(loglimit.Connection, clients.NetworkOf(host).String(), "Got a connection") {
					say("Got a connection from ('%s', %s)", host, port)
				}
			case beacon.BindFailed:
				say("Cant bind to socket")
			case beacon.AcceptFailed:
				const failed = "cannot accept connections"
				if limit.Allow(loglimit.Service, failed, failed) {
					log.Warn(failed, "err", err)
				}
			}
		},
	})
	say("Exiting...")
	return 0
}
