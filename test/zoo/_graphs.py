"""Graph networks of PyTorch Geometric: `x` is the nodes' features; all have the same graph."""

import torch
import torch_geometric.nn as gnn
from _model import EXAMPLES, Entry, numbers
from torch import nn

NODES, FEATURES = 5, 4
EDGES = torch.tensor([[0, 1, 1, 2, 3, 4, 4, 0, 2], [1, 0, 2, 1, 4, 3, 0, 4, 2]])
BATCH = torch.tensor([0, 0, 0, 1, 1])


def nodes(features=FEATURES):
    return numbers((EXAMPLES, NODES, features), 0.4, torch.float64)


def model(kind, *sizes, call=None, **options):
    call = call or (lambda m, x: m(x, EDGES))
    return lambda: Entry(kind(*sizes, **options).eval(), nodes(), (), call)


def mlp(*sizes):
    return nn.Sequential(nn.Linear(sizes[0], sizes[1]), nn.Tanh(), nn.Linear(sizes[1], sizes[2]))


def edge_features(width):
    return numbers((EDGES.shape[1], width), 0.9, torch.float64)


def with_edges(width):
    return lambda m, x: m(x, EDGES, edge_features(width).to(x.dtype))


def with_types(m, x):
    return m(x, EDGES, torch.arange(EDGES.shape[1]) % 2)


def molecule(kind, **options):
    """Positions of atoms."""

    def build():
        xs = 2 * numbers((EXAMPLES, NODES, 3), 0.4, torch.float64)
        charges = torch.tensor([1, 6, 7, 1, 8])
        return Entry(kind(**options).eval(), xs, (), lambda m, x: m(charges, x))

    return build


def neighbours(pos, batch):
    """All pairs, in place of the radius graph that needs compiled operators."""
    count = pos.shape[0]
    i, j = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
    index = torch.stack([i[i != j], j[i != j]])
    return index, (pos[index[0]] - pos[index[1]]).norm(dim=-1)


class Pooled(nn.Module):
    def __init__(self, pool):
        super().__init__()
        self.conv = gnn.GraphConv(FEATURES, 6)
        self.pool = pool
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        x = self.conv(x, EDGES).tanh()
        x = self.pool(x, EDGES, batch=BATCH)[0]
        return self.head(x)


class Aggregated(nn.Module):
    def __init__(self, aggregation, width=6):
        super().__init__()
        self.conv = gnn.GCNConv(FEATURES, 6)
        self.aggregation = aggregation
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        return self.head(self.aggregation(self.conv(x, EDGES).tanh(), BATCH))


class Hetero(nn.Module):
    def __init__(self):
        super().__init__()
        metadata = (["a", "b"], [("a", "to", "b"), ("b", "back", "a")])
        self.conv = gnn.HGTConv(FEATURES, 6, metadata, heads=2)

    def forward(self, x):
        edges = torch.tensor([[0, 1, 2, 0], [0, 1, 0, 1]])
        index = {("a", "to", "b"): edges, ("b", "back", "a"): edges.flip(0)}
        return list(self.conv({"a": x[:3], "b": x[3:]}, index).values())


def pointnet(m, x):
    return m(x, x[:, :3], EDGES)


def pooled(pool):
    return lambda: Entry(Pooled(pool()).eval(), nodes(), (), lambda m, x: m(x))


def aggregated(make, width=6):
    return lambda: Entry(Aggregated(make(), width).eval(), nodes(), (), lambda m, x: m(x))


MODELS = {
    "gcn": model(gnn.GCN, FEATURES, 6, 2, 3),
    "graph sage": model(gnn.GraphSAGE, FEATURES, 6, 2, 3),
    "graph sage max": model(gnn.SAGEConv, FEATURES, 3, aggr="max"),
    "graph sage lstm": model(
        gnn.SAGEConv, FEATURES, 3, aggr="lstm", call=lambda m, x: m(x, EDGES[:, EDGES[1].argsort()])
    ),
    "gin": model(gnn.GIN, FEATURES, 6, 2, 3),
    "gine": lambda: Entry(gnn.GINEConv(mlp(4, 6, 3), edge_dim=2), nodes(), (), with_edges(2)),
    "gat": model(gnn.GAT, FEATURES, 6, 2, 3, heads=2),
    "gat v2": model(gnn.GAT, FEATURES, 6, 2, 3, heads=2, v2=True),
    "edge cnn": model(gnn.EdgeCNN, FEATURES, 6, 2, 3),
    "pna": model(
        gnn.PNA,
        FEATURES,
        6,
        2,
        3,
        aggregators=["mean", "max", "min", "std", "var"],
        scalers=["identity", "amplification", "attenuation", "linear"],
        deg=torch.tensor([0, 2, 3]),
    ),
    "cheb": model(gnn.ChebConv, FEATURES, 3, K=3),
    "tag": model(gnn.TAGConv, FEATURES, 3),
    "arma": model(gnn.ARMAConv, FEATURES, 3, num_stacks=2, num_layers=2),
    "sg": model(gnn.SGConv, FEATURES, 3, K=2),
    "ssg": model(gnn.SSGConv, FEATURES, 3, alpha=0.3, K=2),
    "appnp": model(gnn.APPNP, 2, 0.1),
    "graph transformer": model(gnn.TransformerConv, FEATURES, 3, heads=2, beta=True),
    "rgcn": model(gnn.RGCNConv, FEATURES, 3, 2, num_bases=2, call=with_types),
    "rgat": model(gnn.RGATConv, FEATURES, 3, 2, heads=2, call=with_types),
    "film": model(gnn.FiLMConv, FEATURES, 3),
    "nn conv": lambda: Entry(gnn.NNConv(FEATURES, 3, mlp(2, 4, 12)), nodes(), (), with_edges(2)),
    "cg": model(gnn.CGConv, FEATURES, 2, call=with_edges(2)),
    "gmm": model(gnn.GMMConv, FEATURES, 3, 2, 2, call=with_edges(2)),
    "spline like": model(gnn.FeaStConv, FEATURES, 3, heads=2),
    "gated graph": model(gnn.GatedGraphConv, 6, 2),
    "res gated": model(gnn.ResGatedGraphConv, FEATURES, 3),
    "gcn2": model(gnn.GCN2Conv, FEATURES, 0.1, 0.5, 1, call=lambda m, x: m(x, x.sin(), EDGES)),
    "super gat": model(gnn.SuperGATConv, FEATURES, 3, heads=2),
    "agnn": model(gnn.AGNNConv),
    "gen": model(gnn.GENConv, FEATURES, 3, aggr="softmax", learn_t=True),
    "gen power": model(gnn.GENConv, FEATURES, 3, aggr="powermean", learn_p=True),
    "leconv": model(gnn.LEConv, FEATURES, 3),
    "cluster gcn": model(gnn.ClusterGCNConv, FEATURES, 3),
    "general": model(gnn.GeneralConv, FEATURES, 3, attention=True, heads=2),
    "eg": model(
        gnn.EGConv, FEATURES, 4, num_heads=2, num_bases=2, aggregators=["symnorm", "max", "std"]
    ),
    "fa": model(gnn.FAConv, FEATURES, call=lambda m, x: m(x, x.sin(), EDGES)),
    "lg": model(gnn.LGConv),
    "mixhop": model(gnn.MixHopConv, FEATURES, 3),
    "anti symmetric": model(gnn.AntiSymmetricConv, FEATURES),
    "pdn": model(gnn.PDNConv, FEATURES, 3, 2, 4, call=with_edges(2)),
    "dir": lambda: Entry(
        gnn.DirGNNConv(gnn.GCNConv(FEATURES, 3)), nodes(), (), lambda m, x: m(x, EDGES)
    ),
    "gps": lambda: Entry(
        gnn.GPSConv(FEATURES, gnn.GINConv(mlp(4, 6, 4)), heads=2, norm="layer_norm").eval(),
        nodes(),
        (),
        lambda m, x: m(x, EDGES, BATCH),
    ),
    "point net": lambda: Entry(gnn.PointNetConv(mlp(7, 6, 3)), nodes(), (), pointnet),
    "point transformer": model(gnn.PointTransformerConv, FEATURES, 3, call=pointnet),
    "dynamic edge": lambda: Entry(
        gnn.EdgeConv(mlp(8, 6, 3)), nodes(), (), lambda m, x: m(x, EDGES)
    ),
    "hypergraph": model(gnn.HypergraphConv, FEATURES, 3),
    "hgt": lambda: Entry(Hetero(), nodes(), (), lambda m, x: m(x)),
    "graph u net": model(gnn.GraphUNet, FEATURES, 6, 3, depth=2, pool_ratios=0.6),
    "attentive fp": model(
        gnn.AttentiveFP,
        FEATURES,
        6,
        2,
        2,
        2,
        2,
        call=lambda m, x: m(x, EDGES, edge_features(2).to(x.dtype), BATCH),
    ),
    "deep gcn": lambda: Entry(
        gnn.DeepGCNLayer(gnn.GENConv(4, 4), nn.LayerNorm(4), nn.ReLU(), block="res+").eval(),
        nodes(),
        (),
        lambda m, x: m(x, EDGES),
    ),
    "schnet": molecule(
        gnn.SchNet,
        hidden_channels=6,
        num_filters=6,
        num_interactions=1,
        num_gaussians=5,
        interaction_graph=neighbours,
    ),
    "top k pool": pooled(lambda: gnn.TopKPooling(6, 0.5)),
    "sag pool": pooled(lambda: gnn.SAGPooling(6, 0.5)),
    "set2set": aggregated(lambda: gnn.Set2Set(6, 2), 12),
    "softmax aggregation": aggregated(lambda: gnn.SoftmaxAggregation(learn=True)),
    "median aggregation": aggregated(gnn.MedianAggregation),
    "sort aggregation": aggregated(lambda: gnn.SortAggregation(2), 12),
    "set transformer": aggregated(lambda: gnn.aggr.SetTransformerAggregation(6, heads=2)),
    "gru aggregation": aggregated(lambda: gnn.aggr.GRUAggregation(6, 6)),
    "mlp mixer aggregation": aggregated(
        lambda: gnn.aggr.PatchTransformerAggregation(6, 6, 2, 6, heads=2)
    ),
    "graph norm": aggregated(lambda: gnn.GraphNorm(6)),
    "pair norm": aggregated(lambda: gnn.PairNorm()),
    "instance norm": aggregated(lambda: gnn.InstanceNorm(6)),
    "graph layer norm": aggregated(lambda: gnn.LayerNorm(6)),
    "diff pool": model(
        gnn.DenseGraphConv,
        FEATURES,
        3,
        call=lambda m, x: m(x.unsqueeze(0), (x @ x.T).sigmoid().unsqueeze(0)),
    ),
    "dense pool": model(
        gnn.DenseGCNConv,
        FEATURES,
        3,
        call=lambda m, x: gnn.dense_diff_pool(
            x.unsqueeze(0),
            torch.ones(1, 5, 5, dtype=x.dtype),
            m(x.unsqueeze(0), torch.ones(5, 5, dtype=x.dtype)),
        ),
    ),
    "dense gat": model(
        gnn.DenseGATConv,
        FEATURES,
        3,
        heads=2,
        call=lambda m, x: m(x.unsqueeze(0), torch.ones(5, 5, dtype=x.dtype)),
    ),
    "vgae": lambda: Entry(
        gnn.GAE(gnn.GCNConv(FEATURES, 3)),
        nodes(),
        (),
        lambda m, x: m.recon_loss(
            m.encode(x, EDGES), EDGES, EDGES.flip(1) * 0 + torch.tensor([[0], [3]])
        ),
    ),
}
