//go:build mutant_publish_beyond_durable

package mutant

// PublishBeyondDurable shows readers events that are not synced yet.
const PublishBeyondDurable = true
