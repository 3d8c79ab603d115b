/*
 * tree.c -- ordered queue of nodes embedded in what is queued: a treap
 *
 * Kept by key as a search tree and by prio (drawn at random by the owner) as a heap, which keeps it shallow whatever
 * the order of keys.  A list would do for arrivals alone; a tree also takes those that come back to a queue with an
 * old place, and later an order that is not that of arrival.  Chosen over a pairing heap because no single operation
 * is ever slow. Cannot fail.
 */
#include "internal.h"

static struct rl_node **slot_of(struct rl_node **root, struct rl_node *n)
{
    if (!n->up)
        return root;
    return n->up->left == n ? &n->up->left : &n->up->right;
}

static void rotate_up(struct rl_node **root, struct rl_node *n)
{
    struct rl_node *p = n->up, **at = slot_of(root, p), *moved;

    if (p->left == n) {
        moved = n->right;
        p->left = moved;
        n->right = p;
    } else {
        moved = n->left;
        p->right = moved;
        n->left = p;
    }
    if (moved)
        moved->up = p;
    n->up = p->up;
    p->up = n;
    *at = n;
}

void rl_tree_add(struct rl_node **root, struct rl_node *n)
{
    struct rl_node **at = root, *up = NULL;

    while (*at) {
        up = *at;
        at = n->key < up->key ? &up->left : &up->right;
    }
    n->up = up;
    n->left = n->right = NULL;
    *at = n;
    while (n->up && n->prio < n->up->prio)
        rotate_up(root, n);
}

void rl_tree_del(struct rl_node **root, struct rl_node *n)
{
    while (n->left || n->right) {
        struct rl_node *l = n->left, *r = n->right;

        rotate_up(root, !r || (l && l->prio < r->prio) ? l : r);
    }
    *slot_of(root, n) = NULL;
    n->up = NULL;
}

struct rl_node *rl_tree_min(struct rl_node *root)
{
    while (root && root->left)
        root = root->left;
    return root;
}

struct rl_node *rl_tree_find(struct rl_node *root, uint64_t key)
{
    while (root && root->key != key)
        root = key < root->key ? root->left : root->right;
    return root;
}
