package redisstore

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// answer is an error that Redis has answered.
type answer string

func (a answer) Error() string { return string(a) }
func (answer) RedisError()     {}

// Redis 4 to 6 wrap the answers to what a script does. These were recorded, but for
// the last, which is not known.
func TestAnswersOfOlderServers(t *testing.T) {
	const before = "ERR Error running script (call to f_8f55ae4a3be429c6d38c5d5db3e80edf89197b64): "
	for text, says := range map[string]string{
		before + "@user_script:4: @user_script: 4: -READONLY You can't write against a read only replica.":     "read-only replica",
		before + "@user_script:5: -READONLY You can't write against a read only slave.":                        "read-only replica",
		before + "@user_script:41: @user_script: 41: -OOM command not allowed when used memory > 'maxmemory'.": "the server is full",
		before + "@user_script:2: WRONGTYPE Operation against a key holding the wrong kind of value":           "not a hash",
		before + "@user_script: 5: @user_script: 5: -MISCONF Redis is configured to save RDB snapshots":        "cannot save to its disk",
		before + "@user_script: 5: @user_script: 5: -NOREPLICAS Not enough good replicas to write.":            "too few replicas",
		"READONLY You can't write against a read only replica. script: 6b818461879b7e, on @user_script:1.":     "read-only replica",
		"OOM command not allowed when used memory > 'maxmemory'. script: 6b818461879b7e, on @user_script:5.":   "the server is full",
		"BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.":               "busy with a script",
	} {
		why := rows{}.Explain(answer(text))
		require.ErrorContains(t, why.Err, says, text)
		require.True(t, why.Refused, text)
		require.NotEmpty(t, why.Remedy)
	}
	why := rows{}.Explain(answer(before + "@user_script:5: planted-8b1d4e7f20c95a63 failed"))
	require.NotContains(t, why.Err.Error(), "8b1d4e7f20c95a63")
	require.False(t, why.Refused)
}
