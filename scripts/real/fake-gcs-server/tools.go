//go:build tools

// Keeps `go mod tidy` from dropping what is built from here; go.sum pins every module by its hash.
package tools

import _ "github.com/fsouza/fake-gcs-server"
