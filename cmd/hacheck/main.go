// Command hacheck answers the health checks of load balancers. An operator's override decides first (see haup,
// hadown and hastatus), then a check of the service itself.
//
// Exit codes of the daemon: 0 after SIGTERM, SIGINT or SIGQUIT, once the requests in flight are answered; 1 if the
// machine does not let it start (a port is taken, the spool directory cannot be read) or if a second signal cuts
// requests off; 2 if the command line or the configuration file is wrong. A crash ends it by a signal, SIGABRT.
package main

import (
	"os"

	"hacheck/internal/daemon"
)

// version is set by the linker: -ldflags '-X main.version=1.2.3'.
var version = "dev"

func main() { os.Exit(daemon.Main(os.Args[1:], daemon.System(version))) }
