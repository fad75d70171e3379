/* The C interface of libtsnet, for cffi. tsnet_go/exports.go implements it.
 *
 * Every function returns 0 or -1 and sets *out to a string that tb_free frees:
 * the result as JSON, or {"code","op","message"}. Times are milliseconds.
 */
void tb_free(char *p);
int32_t tb_version(char **out);
int32_t tb_stats(char **out);
int32_t tb_max_procs(int32_t count, char **out);
int32_t tb_callers(char **out);
/* Returns the length of the answer in out, or -1. It never enters Go: tsnet_go/callers.c. */
int32_t tb_caller_read(char *slot, int32_t size, uint64_t version, char *out);

int32_t tb_node_new(char *config, int32_t events_fd, int64_t *handle, char **out);
int32_t tb_node_up(int64_t node, int64_t timeout_ms, char **out);
int32_t tb_node_cancel(int64_t node, char **out);
int32_t tb_node_status(int64_t node, char **out);
int32_t tb_node_close(int64_t node, int64_t timeout_ms, char **out);

/* A bridge is what tb_listen or tb_forward opens. */
int32_t tb_listen(int64_t node, char *config, int64_t *handle, char **out);
int32_t tb_forward(int64_t node, char *config, int64_t *handle, char **out);
int32_t tb_bridge_close(int64_t bridge, int64_t drain_ms, char **out);

int32_t tb_whois(int64_t node, char *source, char **out);

int32_t tb_devnet_start(char *config, int64_t *handle, char **out);
int32_t tb_devnet_do(int64_t devnet, char *command, char **out);
int32_t tb_devnet_stop(int64_t devnet, int64_t timeout_ms, char **out);
