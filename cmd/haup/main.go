// Command haup lifts the overrides that hadown has set, so that load balancers see the services up again.
package main

import (
	"os"

	"hacheck/internal/admin"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(admin.Main("haup", os.Args, admin.System(version))) }
