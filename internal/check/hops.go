package check

import "strconv"

// HopsHeader is the header of every HTTP request that a check sends. Its value is the number of checks that led to the
// request: 1 for a check that a balancer asks for, 2 if the checked service is itself a hacheck that checks another
// one, and so on.
//
// Without this limit one URL could take as many slots as it has room for port numbers, because each check of hacheck
// asks hacheck for the next one, directly or through a proxy.
const HopsHeader = "X-Hacheck-Hops"

// MaxHops is the largest value of HopsHeader with which a check is run.
const MaxHops = 4

// ParseHops parses one value of HopsHeader. It returns MaxHops+1 for a larger number and for anything that is not a
// decimal number.
func ParseHops(value string) uint8 {
	n, err := strconv.ParseUint(value, 10, 8)
	if err != nil {
		return MaxHops + 1
	}
	return uint8(min(n, MaxHops+1))
}

// LargestHops returns the largest of the values of HopsHeader that a request has, 0 if there are none.
func LargestHops(values []string) (hops uint8) {
	for _, v := range values {
		hops = max(hops, ParseHops(v))
	}
	return hops
}

// nextHops returns the value of HopsHeader for a request that t's check sends.
func nextHops(t *Target) string { return strconv.Itoa(int(t.Hops) + 1) }
