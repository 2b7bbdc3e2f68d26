package main

import (
	"fmt"
	"time"
)

// memory measures one daemon: idle, after load, and with more and more cached targets.
func (b *bench) memory() error {
	service, err := startTestService(nil)
	if err != nil {
		return err
	}
	defer service.stop()
	h, err := b.startHacheck("", cacheForAnHour)
	if err != nil {
		return err
	}
	defer h.stop()
	private, all, err := b.memoryAtRest(h)
	if err != nil {
		return err
	}
	const what, unit = "private memory (RssAnon) ", "MB"
	rss := func(all float64) string { return fmt.Sprintf("whole RSS %.1f MB", all) }
	b.addAtMost(what+"idle", []float64{private}, 6, unit)
	b.addAtMost("whole RSS idle", []float64{all}, 26, unit)

	path := fmt.Sprintf("/http/web/%d/status", service.port)
	if err := h.expectOK(path); err != nil {
		return err
	}
	for range 3 {
		for _, args := range [][]string{{}, {"-H", "Connection: close"}} {
			if _, err := b.rate("http://"+h.addr+path, args...); err != nil {
				return err
			}
		}
	}
	if private, all, err = b.memoryAtRest(h); err != nil {
		return err
	}
	b.addInformation(what+"after load", []float64{private}, unit, rss(all))

	filled := 0
	for _, size := range []struct {
		targets int
		floor   float64
	}{{10000, 30}, {100000, 110}} {
		from := filled
		err := b.fillCache(h, size.targets-from, "", func(i int) string {
			return fmt.Sprintf("/http/service-%06d/%d/status?%06d", from+i, service.port, from+i)
		})
		if err != nil {
			return err
		}
		filled = size.targets
		if private, all, err = b.memoryAtRest(h); err != nil {
			return err
		}
		b.addAtMost(fmt.Sprintf("%swith %s targets cached", what, thousands(size.targets)), []float64{private}, size.floor, unit, rss(all))
	}
	return nil
}

// memoryAtRest returns the private and the whole memory of a daemon, a second after its last answer.
func (b *bench) memoryAtRest(h *hacheck) (private, all float64, err error) {
	select {
	case <-time.After(time.Second):
	case <-b.ctx.Done():
		return 0, 0, b.ctx.Err()
	}
	return h.memory()
}
