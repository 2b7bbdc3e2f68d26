// Command hastatus shows the overrides of services. Under the name halist it shows the services that hacheck was asked
// about lately, under the name hashowdowned all services that are down.
package main

import (
	"os"

	"hacheck/internal/admin"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(admin.Main("hastatus", os.Args, admin.System(version))) }
