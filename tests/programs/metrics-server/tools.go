//go:build tools

// What `kubectl top` asks, at the version that go.mod and go.sum pin. Nothing here is compiled into Culvert.
package programs

import (
	_ "sigs.k8s.io/metrics-server/cmd/metrics-server"
)
