package daemon

import (
	"net/http"

	"hacheck/internal/balancer"
	"hacheck/internal/fleetlock"
)

// fleetLockHandler returns the handler of the FleetLock protocol (fleet: {fleet_lock: true}).
func (d *daemon) fleetLockHandler(f fleetlock.Fleet) http.Handler {
	return fleetlock.New(fleetlock.Options{
		Fleet: f, Spool: d.dir, Overrides: d.index, Log: d.log, LogLimit: d.logLimit,
		Balancers: func() balancer.Report { return d.web.BalancerReport() },
	})
}
