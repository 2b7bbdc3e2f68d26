// Command hadown takes services out of service, so that load balancers see them down.
package main

import (
	"os"

	"hacheck/internal/admin"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(admin.Main("hadown", os.Args, admin.System(version))) }
