//go:build tools

// The tunnel that Culvert is compared with, at the version that go.mod and go.sum pin. Nothing here is compiled into Culvert.
package programs

import (
	_ "github.com/openyurtio/openyurt/cmd/yurt-tunnel-agent"
	_ "github.com/openyurtio/openyurt/cmd/yurt-tunnel-server"
)
