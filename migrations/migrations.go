// Package migrations holds the database's schema: forward-only SQL files that
// goose runs in order. schema.sql is what they add up to; a test keeps it so.
package migrations

import "embed"

// FS holds the migrations.
//
//go:embed 0*.sql
var FS embed.FS
