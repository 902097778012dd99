//go:build tools

// The container runtime that kubelets from 1.36 on ask for, at the version that go.mod and go.sum pin; Debian has an older
// one. Nothing here is compiled into Culvert.
package programs

import (
	_ "github.com/containerd/containerd/v2/cmd/containerd"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"
)
