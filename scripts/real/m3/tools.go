//go:build tools

// Keeps `go mod tidy` from dropping what is built from here; go.sum pins every module by its hash.
package tools

import (
	_ "github.com/m3db/m3/src/cmd/services/m3dbnode/main"
	_ "github.com/m3db/m3/src/cmd/tools/read_data_files/main"
	_ "github.com/m3db/m3/src/cmd/tools/verify_data_files/main"
)
