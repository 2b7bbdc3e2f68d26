// Package admin is what haup, hadown, hastatus, halist and hashowdowned share: one program that acts
// as the command it was called as.
//
// The commands work on the spool directory and need no daemon; only halist and the overview of
// hastatus ask one. They are started from scripts, many times over, so nothing heavy is linked:
// the daemon is asked with a bounded HTTP/1.0 GET of our own, and options are read by pflag alone.
// cobra would add a third to the start-up cost and three words ("help", "completion", "__complete")
// that could be taken for its subcommands instead of the services an operator means.
package admin
