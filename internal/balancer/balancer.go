// Package balancer remembers which load balancers ask, how often, what they are told, and how they see the
// servers of this host. It tells an operator when it is safe to touch the machine.
package balancer
