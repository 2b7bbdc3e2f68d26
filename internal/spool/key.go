package spool

// All is the service name whose override covers every service on the host.
const All = "all"

// MaxName is the longest service name and the longest file name of an override, in bytes.
const MaxName = 200

// Key names what an override is about: a whole service, one instance of it on this machine (Port),
// or one instance on a given host (Host and Port). Host without Port does not exist.
type Key struct {
	Service string
	Host    string // an address in canonical text, or whatever a foreign tool wrote; "" when not given
	Port    uint16 // 0 when the override is about the whole service
}
