package cache

// Renew replaces the stored result of key before it expires. The caller must have got CachedResult.Renew from Get; at is
// the generation of that Get.
//
// Renew calls run and blocks until it returns. It does not call run if a call for key is in flight, or if another call has
// replaced the result since Get. Callers of Do that come during the renewal wait for it and do not call their own run.
//
// A result that says nothing about the key (a negative Options.TTL) is not stored and is not returned by Do: one of the
// waiting callers then calls its own run. Get asks for the next renewal after freshInterval.
func (c *Cache[V]) Renew(key string, at Generation, run func() V) {
	stored, _, ok := c.get(key, at)
	if !ok || stored.renewAfter.Load() != noRenewal {
		return // it has expired, or it is a newer one
	}
	x, first := c.group.startOrWait(callName(key, at), false)
	if !first {
		c.renewLater(stored)
		return
	}
	var result *entry[V]
	defer func() { // also after a panic of run
		if result == nil {
			c.renewLater(stored)
		}
		c.group.finish(x, result)
	}()
	v := run()
	if c.o.TTL(v) >= 0 {
		result = c.store(key, v, at.Current)
	}
}

// renewLater lets Get ask for a renewal of e again, after freshInterval. A cache under load must not try for each hit.
func (c *Cache[V]) renewLater(e *entry[V]) {
	e.renewAfter.Store(int64(c.now() - e.finished + freshInterval))
}
