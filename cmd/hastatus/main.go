// Command hastatus shows what operators have said about services; linked as halist it shows what hacheck
// was asked lately, linked as hashowdowned everything that is down.
package main

import (
	"os"

	"hacheck/internal/admin"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(admin.Main("hastatus", os.Args, admin.System(version))) }
