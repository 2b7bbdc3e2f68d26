// Command haup lifts what hadown has said about services.
package main

import (
	"os"

	"hacheck/internal/admin"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(admin.Main("haup", os.Args, admin.System(version))) }
