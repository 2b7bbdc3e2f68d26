// Command hadown sets an override for each service that it names, so that load balancers see the service down.
package main

import (
	"os"

	"hacheck/internal/admin"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(admin.Main("hadown", os.Args, admin.System(version))) }
