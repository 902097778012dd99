//go:build tools

// What answers a cluster's names, at the version that go.mod and go.sum pin. Nothing here is compiled into Culvert.
package programs

import (
	_ "culvert.dev/programs/coredns/coredns"
)
