package check

import "strconv"

// HopsHeader is the header of every HTTP request that a check sends. Its value is the number of checks that the
// request is part of: 1 for a check that a balancer asked for, 2 where the service that this check asks is another
// hacheck, or this one, and so on.
//
// Without it one URL can hold as many slots as it has room for port numbers, because each check of hacheck asks
// hacheck for the next one, directly or through a proxy.
const HopsHeader = "X-Hacheck-Hops"

// MaxHops is the largest value of HopsHeader that a request may have to be checked.
const MaxHops = 4

// ParseHops reads one value of HopsHeader. It returns MaxHops+1 for a larger number and for anything that is not a
// decimal number.
func ParseHops(value string) uint8 {
	n, err := strconv.ParseUint(value, 10, 8)
	if err != nil {
		return MaxHops + 1
	}
	return uint8(min(n, MaxHops+1))
}

// WorstHops reads all values of HopsHeader that a request has. It returns 0 if there are none, else the largest.
func WorstHops(values []string) (hops uint8) {
	for _, v := range values {
		hops = max(hops, ParseHops(v))
	}
	return hops
}

// nextHops is the value of HopsHeader for a request that t's check sends.
func nextHops(t *Target) string { return strconv.Itoa(int(t.Hops) + 1) }
