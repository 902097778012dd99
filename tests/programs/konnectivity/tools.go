//go:build tools

// The tunnel beside which Culvert's links are measured, at the version that go.mod and go.sum pin. Nothing here is compiled into
// Culvert.
package programs

import (
	_ "sigs.k8s.io/apiserver-network-proxy/cmd/agent"
	_ "sigs.k8s.io/apiserver-network-proxy/cmd/server"
)
